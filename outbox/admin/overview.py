"""The overview page: one look at everything, put into words, cards and tables, with a way on from each.

The admin's first page shows it (smartflow/web) and fetches it again every few seconds.
"""

from dataclasses import dataclass
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from outbox.admin.chart import chart_of, rate_text
from outbox.admin.panels import panels_of
from outbox.database_clock import database_now
from outbox.queries import Finding, Overview, Place, Severity, is_well, list_troubles, overview
from outbox.queries.verdict import LATE_SECONDS
from smartflow.kernel.durations import compact_duration

# The counts of the hour that have no card, in the order in which an operator asks for them.
_HOUR: tuple[tuple[str, Any, str], ...] = (
    ("retried", _("tried again"), "late"),
    ("dead", _("became dead letters"), "bad"),
    ("violations", _("order broken"), "bad"),
    ("fenced", _("refused as another's"), "calm"),
    ("duplicates", _("came twice, left alone"), "calm"),
    ("conflicts", _("database conflicts, repeated"), "calm"),
)
_WAYS: dict[str, Any] = {
    Place.READY: _("Open the ready rows"),
    Place.PUBLISHED: _("Open the published rows"),
    Place.DEAD: _("Open the dead letters"),
    Place.BLOCKED: _("Open the blocked keys"),
    Place.EVENT_TYPES: _("Open the event types"),
    Place.RELAYS: _("Look at the relays"),
    Place.CONSUMERS: _("Look at the consumers"),
    Place.HOUR: _("Look at the last hour"),
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """One figure and the list it leads to. `tone`: calm, late or bad."""

    name: str
    title: Any
    figure: str
    note: Any
    url: str
    tone: str = "calm"


def console() -> dict[str, Any]:
    """Return the template's context of the overview (outbox/overview.html). Reads: outbox.queries.overview."""
    look = overview(now=database_now())
    troubles = list_troubles(look=look)
    return {
        "headline": _headline(look, troubles),
        "tone": _tone(troubles),
        "troubles": [
            {"finding": trouble, "url": _url_of(trouble.place), "way": _WAYS[trouble.place]} for trouble in troubles
        ],
        "cards": _cards(look),
        "chart": chart_of(look),
        "hour": [
            {"name": name, "title": title, "count": f"{count:,}", "tone": tone if count else "calm"}
            for name, title, tone in _HOUR
            for count in [look.hour_total(name)]
        ],
        "panels": panels_of(look),
        "looked_at": look.at,
    }


def _tone(troubles: list[Finding]) -> str:
    if not troubles:
        return "good"
    return {Severity.BAD: "bad", Severity.LATE: "late"}.get(troubles[0].severity, "calm")


def _headline(look: Overview, troubles: list[Finding]) -> Any:
    if not is_well(troubles=troubles):
        return troubles[0].text
    rates = {"written": rate_text(look.rate("written")), "handled": rate_text(look.rate("consumed"))}
    return _("All is well: %(written)s events a second come in, %(handled)s are handled, and nothing is late.") % rates


def _url_of(place: Place) -> str:
    rows = reverse("admin:outbox_outboxmessage_changelist")
    pages = {
        Place.READY: f"{rows}?status=ready",
        Place.PUBLISHED: f"{rows}?status=published",
        Place.DEAD: reverse("admin:outbox_deadletter_changelist") + "?discarded=no",
        Place.BLOCKED: reverse("admin:outbox_keyhold_changelist"),
        Place.EVENT_TYPES: reverse("admin:outbox_event_types"),
    }
    return pages.get(place, f"#{place}")


def _cards(look: Overview) -> list[Card]:
    rows = reverse("admin:outbox_outboxmessage_changelist")
    return [
        Card(
            name="in",
            title=_("Events in"),
            figure=_per_second(look, "written"),
            note=_("written, over the last minute"),
            url=rows,
        ),
        Card(
            name="out",
            title=_("Events out"),
            figure=_per_second(look, "published"),
            note=_("published; %(rate)s handled") % {"rate": _per_second(look, "consumed")},
            url=f"{rows}?status=consumed",
        ),
        _oldest_card(look),
        Card(
            name="pending",
            title=_("Pending"),
            figure=str(look.depth.pending),
            note=_("%(ready)s ready, %(in_flight)s of them in flight")
            % {"ready": look.depth.ready, "in_flight": look.depth.in_flight},
            url=f"{rows}?status=pending",
        ),
        Card(
            name="retrying",
            title=_("Retrying"),
            figure=str(look.depth.waiting),
            note=_("wait for their next try"),
            url=f"{rows}?status=waiting",
            tone="late" if look.depth.waiting.value else "calm",
        ),
        _published_card(look),
        Card(
            name="blocked",
            title=_("Blocked keys"),
            figure=str(look.depth.blocked_keys),
            note=_("%(held)s events held behind them") % {"held": look.depth.held},
            url=_url_of(Place.BLOCKED),
            tone="late" if look.depth.blocked_keys.value else "calm",
        ),
        Card(
            name="dead",
            title=_("Dead letters"),
            figure=str(look.depth.dead),
            note=_("wait for a decision") if look.depth.dead.value else _("none to decide about"),
            url=_url_of(Place.DEAD),
            tone="bad" if look.depth.dead.value else "calm",
        ),
    ]


def _per_second(look: Overview, name: str) -> str:
    return str(_("%(rate)s/s") % {"rate": rate_text(look.rate(name))})


def _oldest_card(look: Overview) -> Card:
    ready, pending = look.depth.oldest_ready_seconds, look.depth.oldest_pending_seconds
    note: Any = _("nothing is waiting")
    if pending is not None:
        note = _("the oldest of all, blocked or retrying: %(age)s") % {"age": compact_duration(pending)}
    return Card(
        name="oldest",
        title=_("Oldest ready"),
        figure="-" if ready is None else compact_duration(ready),
        note=note,
        url=_url_of(Place.READY),
        tone="late" if (ready or 0) > LATE_SECONDS else "calm",
    )


def _published_card(look: Overview) -> Card:
    age = look.depth.oldest_published_seconds
    note: Any = _("the consumer has them all")
    if age is not None:
        note = _("the oldest for %(age)s") % {"age": compact_duration(age)}
    return Card(
        name="published",
        title=_("Not yet handled"),
        figure=str(look.depth.published),
        note=note,
        url=_url_of(Place.PUBLISHED),
        tone="late" if (age or 0) > LATE_SECONDS else "calm",
    )
