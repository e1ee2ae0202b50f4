"""The operators' overview: how deep and how late the outbox is, and what is being answered now.

Shown on the admin's first page and fetched again every few seconds. The numbers come from bounded reads, so that the
page answers on the day when it is needed most.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache

from chat.run_queries import count_runs_in_flight
from outbox.queries import OutboxDepth, depth_and_lag
from smartflow.kernel.clock import utc_now
from smartflow.kernel.durations import compact_duration

REFRESH_SECONDS = 3
# An event is normally published within a second: half a minute means that no relay is at work.
LATE_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Card:
    """One figure and the list it leads to."""

    name: str
    title: Any
    figure: str
    note: Any
    url: str
    tone: str = "calm"  # calm, late or bad


def add_overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Put the overview on the admin's first page (UNFOLD["DASHBOARD_CALLBACK"])."""
    return {**context, **_overview(request)}


@never_cache
def overview(request: HttpRequest) -> HttpResponse:
    """Return the overview alone, for the page that refreshes it."""
    if not admin.site.has_permission(request):
        # A redirect would put the login form into the middle of the page.
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    return render(request, "web/overview.html", _overview(request))


def _overview(request: HttpRequest) -> dict[str, Any]:
    now = utc_now()
    cards: list[Card] = []
    if request.user.has_perm("outbox.view_outboxmessage"):
        cards.extend(_outbox_cards(depth_and_lag(now=now)))
    if request.user.has_perm("chat.view_chatrun"):
        cards.append(_runs_card())
    return {"cards": cards, "looked_at": now, "refresh_seconds": REFRESH_SECONDS}


def _outbox_cards(depth: OutboxDepth) -> list[Card]:
    rows = reverse("admin:outbox_outboxmessage_changelist")
    lag = depth.oldest_pending_seconds
    return [
        Card(
            name="pending",
            title=_("Pending"),
            figure=str(depth.pending),
            note=_("%(count)s of them wait for their next try") % {"count": depth.waiting},
            url=_with(rows, status="pending"),
            tone="late" if depth.waiting.value else "calm",
        ),
        Card(
            name="oldest",
            title=_("Oldest pending"),
            figure="-" if lag is None else compact_duration(lag),
            note=_("since it was written") if lag is not None else _("nothing is waiting"),
            url=_with(rows, status="pending"),
            tone="late" if lag is not None and lag > LATE_SECONDS else "calm",
        ),
        Card(
            name="published",
            title=_("Not yet consumed"),
            figure=str(depth.published),
            note=_published_note(depth),
            url=_with(rows, status="published"),
            tone="late" if (depth.oldest_published_seconds or 0) > LATE_SECONDS else "calm",
        ),
        Card(
            name="dead",
            title=_("Dead letters"),
            figure=str(depth.dead),
            note=_("wait for a decision") if depth.dead.value else _("none to decide about"),
            url=_with(reverse("admin:outbox_deadletter_changelist"), discarded="no"),
            tone="bad" if depth.dead.value else "calm",
        ),
    ]


def _published_note(depth: OutboxDepth) -> Any:
    if depth.oldest_published_seconds is None:
        return _("the consumer has them all")
    return _("the oldest for %(age)s") % {"age": compact_duration(depth.oldest_published_seconds)}


def _runs_card() -> Card:
    return Card(
        name="runs",
        title=_("Runs in flight"),
        figure=str(count_runs_in_flight()),
        note=_("being answered now"),
        url=_with(reverse("admin:chat_chatrun_changelist"), state="in_flight"),
    )


def _with(url: str, **params: str) -> str:
    return f"{url}?{urlencode(params)}"
