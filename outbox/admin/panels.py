"""The tables of the overview page: what is blocked, dead, paused and under way, and who works here."""

from dataclasses import dataclass
from typing import Any

from django.urls import reverse
from django.utils.http import urlencode
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from outbox.admin import display as words
from outbox.models import Status, Worker
from outbox.queries import Overview, Place
from outbox.queries.console import WorkerState
from smartflow.api.admin_table import Table, link
from smartflow.api.keyset_admin import coloured_label, one_line
from smartflow.kernel.durations import compact_duration


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A table with a heading; `name` is its anchor."""

    name: str
    title: Any
    table: Table


def panels_of(look: Overview) -> list[Panel]:
    """Return the tables; those of troubles that are not there are left out."""
    panels = [
        Panel(name="actions", title=_("Operators' work in progress"), table=_actions(look)),
        Panel(name="blocked", title=_("Blocked keys, longest first"), table=_blocked(look)),
        Panel(name="dead", title=_("Dead letters by event type and error"), table=_dead(look)),
        Panel(name="paused", title=_("Paused event types"), table=_paused(look)),
    ]
    return [
        *(panel for panel in panels if panel.table.lines),
        Panel(name=Place.RELAYS, title=_("Relays"), table=_relays(look)),
        Panel(name=Place.CONSUMERS, title=_("Consumers"), table=_consumers(look)),
        *([Panel(name="partitions", title=_("Partitions"), table=_partitions(look))] if look.partitions else []),
    ]


def _blocked(look: Overview) -> Table:
    heads = (_("key"), _("for"), _("events behind"), _("waits for"), _("event type"), _("error"))
    return Table.of(
        heads,
        (
            (
                link(words.key_url(key.key), key.key),
                one_line(compact_duration((look.at - key.since).total_seconds())),
                key.behind,
                link(words.row_url(key.head_id), f"#{key.head_id}"),
                key.head_type,
                key.head_error or (_("paused") if key.head_status == Status.PENDING else "-"),
            )
            for key in look.blocked
        ),
    )


def _dead(look: Overview) -> Table:
    dead_letters = reverse("admin:outbox_deadletter_changelist")
    heads = (_("event type"), _("error"), _("dead letters"))
    return Table.of(
        heads,
        (
            (
                group.event_type,
                group.reason or "-",
                link(
                    f"{dead_letters}?{urlencode({'event_type': group.event_type, 'error': group.reason})}",
                    f"{group.count:,}",
                ),
            )
            for group in look.dead
        ),
    )


def _paused(look: Overview) -> Table:
    return Table.of(
        (_("event type"), _("by"), _("for"), _("reason")),
        (
            (
                link(reverse("admin:outbox_event_types"), pause.event_type),
                pause.by,
                compact_duration((look.at - pause.since).total_seconds()),
                pause.reason,
            )
            for pause in look.paused
        ),
    )


def _actions(look: Overview) -> Table:
    return Table.of(
        (_("action"), _("by"), _("state"), _("rows done")),
        (
            (
                link(reverse("admin:outbox_operatoraction_change", args=[action.id]), f"{action.verb} #{action.id}"),
                action.by,
                action.state,
                f"{action.done:,} / {action.expected:,}",
            )
            for action in look.actions
        ),
    )


def _relays(look: Overview) -> Table:
    heads = (_("relay"), _("state"), _("heard of"), _("process"), _("shards"), _("broker"), _("published"), _("since"))
    return Table.of(
        heads,
        (
            (
                worker.name,
                _worker_label(worker),
                _heard(worker),
                worker.owner or "-",
                "–".join(str(end) for end in worker.state.get("shards", ())) or "-",
                coloured_label(_("away"), "danger") if worker.is_breaker_open else _("answers"),
                f"{int(worker.state.get('published') or 0):,}",
                _since(worker),
            )
            for worker in look.workers_of(Worker.Kind.RELAY)
        ),
        empty=_("No relay has ever been at work here."),
    )


def _consumers(look: Overview) -> Table:
    heads = (
        _("consumer"),
        _("state"),
        _("heard of"),
        _("partitions"),
        _("behind"),
        _("batch in hand"),
        _("handled"),
        _("since"),
    )
    return Table.of(
        heads,
        (
            (
                worker.name,
                _worker_label(worker),
                _heard(worker),
                len(worker.state.get("partitions", ())),
                f"{sum(int(place.get('lag') or 0) for place in worker.state.get('partitions', ())):,}",
                compact_duration(worker.busy_seconds) if worker.busy_seconds else "-",
                f"{int(worker.state.get('consumed') or 0):,}",
                _since(worker),
            )
            for worker in look.workers_of(Worker.Kind.CONSUMER)
        ),
        empty=_("No consumer is at work here."),
    )


def _partitions(look: Overview) -> Table:
    heads = (_("topic"), _("partition"), _("behind"), _("position"), _("end"), _("consumer"))
    return Table.of(
        heads,
        (
            (lag.topic, lag.partition, f"{lag.lag:,}", f"{lag.position:,}", f"{lag.end:,}", lag.consumer)
            for lag in look.partitions
        ),
    )


def _worker_label(worker: WorkerState) -> str:
    if not worker.is_live:
        return coloured_label(_("gone"), "danger")
    return coloured_label(_("at work"), "success")


def _heard(worker: WorkerState) -> Any:
    return one_line(_("%(age)s ago") % {"age": compact_duration(worker.heartbeat_seconds)})


def _since(worker: WorkerState) -> Any:
    return one_line(f"{localtime(worker.started_at):%Y-%m-%d %H:%M}")
