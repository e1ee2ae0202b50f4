"""The story of one row, in the order in which it happened: written, tried, published, handled, moved by operators.

Built from the row, its failed tries and the operators' records; reads nothing itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from outbox.admin import display as words
from outbox.models import Attempt, OperatorAction, OutboxMessage, Status
from outbox.queries import kind_of_error
from smartflow.api.admin_table import link
from smartflow.kernel.text import bounded

ERROR_BYTES = 1000

_FAILED: dict[str, Any] = {
    Attempt.Step.PUBLISH: _("Try %(number)s to publish failed"),
    Attempt.Step.HANDLE: _("Try %(number)s to handle failed"),
}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One thing that happened. `tone`: calm, good, late or bad."""

    at: datetime
    title: Any
    detail: Any = ""
    error: str = ""
    tone: str = "calm"


def story_of(
    row: OutboxMessage,
    *,
    attempts: Sequence[Attempt],
    actions: Sequence[OperatorAction],
    may_see_actions: bool,
    may_read_errors: bool,
) -> list[Moment]:
    """Return what happened to a row, oldest first; without `may_read_errors` the kind of each error alone."""
    moments = [
        _written(row),
        *(_failed(attempt, is_last=row.status == Status.DEAD and attempt is attempts[-1]) for attempt in attempts),
        *_arrived(row),
        *_ended_without_record(row, attempts, actions),
        *(_acted(action, may_see_actions) for action in actions),
    ]
    if not may_read_errors:
        moments = [replace(moment, error=kind_of_error(error=moment.error)) for moment in moments]
    # The sort is stable: what carries one moment stays in the order of the list above.
    return sorted(moments, key=lambda moment: moment.at)


def _written(row: OutboxMessage) -> Moment:
    detail: Any = _("outside a request")
    if row.request_id:
        detail = format_html("{} {}", _("by the request"), link(words.search_url(row.request_id), row.request_id))
    return Moment(at=row.created_at, title=_("Written"), detail=detail)


def _failed(attempt: Attempt, *, is_last: bool) -> Moment:
    title = _FAILED.get(attempt.step, _FAILED[Attempt.Step.HANDLE]) % {"number": attempt.number}
    detail = _("by %(by)s, after %(seconds)s s") % {"by": attempt.by or "-", "seconds": f"{attempt.seconds:.3f}"}
    error = bounded(attempt.error, max_bytes=ERROR_BYTES)
    return Moment(at=attempt.at, title=title, detail=detail, error=error, tone="bad" if is_last else "late")


def _arrived(row: OutboxMessage) -> Iterator[Moment]:
    if row.published_at:
        yield Moment(at=row.published_at, title=_("Published"), detail=_place(row))
    if row.consumed_at:
        by = _("by %(by)s") % {"by": row.consumed_by} if row.consumed_by else ""
        made = words.effect_url(row)
        detail = format_html("{} {}", by, link(made, _("see what it made"))) if made else by
        yield Moment(at=row.consumed_at, title=_("Handled"), detail=detail, tone="good")


def _place(row: OutboxMessage) -> str:
    parts = [str(_("by %(by)s") % {"by": row.published_by})] if row.published_by else []
    parts.append(str(_("to %(topic)s") % {"topic": row.topic}))
    if row.published_partition is not None:
        place = {"partition": row.published_partition, "offset": row.published_offset}
        parts.append(str(_("partition %(partition)s, offset %(offset)s") % place))
    return ", ".join(parts)


def _acted(action: OperatorAction, may_see: bool) -> Moment:
    title: Any = _("Requeued by %(by)s")
    if action.verb == OperatorAction.Verb.DISCARD:
        title = _("Discarded by %(by)s")
    detail: SafeString | str = action.reason
    if may_see:
        url = reverse("admin:outbox_operatoraction_change", args=[action.pk])
        detail = format_html("{} · {}", action.reason, link(url, _("action #%(id)s") % {"id": action.pk}))
    return Moment(at=action.finished_at or action.requested_at, title=title % {"by": action.by}, detail=detail)


def _ended_without_record(
    row: OutboxMessage, attempts: Sequence[Attempt], actions: Sequence[OperatorAction]
) -> Iterator[Moment]:
    if row.status == Status.DEAD and not attempts:
        # parked before tries were kept, or its record was pruned
        error = bounded(row.last_error or "", max_bytes=ERROR_BYTES)
        yield Moment(at=row.discarded_at or row.updated_at, title=_("Parked as a dead letter"), error=error, tone="bad")
    if row.discarded_at and not any(action.verb == OperatorAction.Verb.DISCARD for action in actions):
        yield Moment(at=row.discarded_at, title=_("Discarded"), detail=row.discard_reason)
