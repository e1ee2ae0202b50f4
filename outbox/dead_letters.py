"""Step 5: the rows parked after their last attempt. Operators requeue or discard them, and say why.

Few rows are moved at once, many by the background job (operator_actions.py); both leave an OperatorAction behind.
Called by the admin and by `manage.py outbox`.
"""

from collections.abc import Sequence
from datetime import datetime

from outbox.models import OperatorAction
from outbox.operator_actions import Asked, move_at_once, move_in_background
from outbox.selection import Selection, freeze, preview_dead_letters

Verb = OperatorAction.Verb


def requeue(*, selection: Selection, by: str, reason: str, now: datetime, user_id: int | None = None) -> OperatorAction:
    """
    Send dead rows round again with a full set of attempts.

    Transaction: its own when the rows are few, one with the record; else only the record is written, and the
                 background job moves the rows.
    Order:       by id. Rows of the same key that were handled meanwhile are not undone: a requeued event arrives
                 after them. What waited behind a row that blocked its key follows it.
    Twice:       the second call moves nothing.
    Raises:      ReasonMissing.
    """
    return _move(Asked(verb=Verb.REQUEUE, selection=selection, by=by, user_id=user_id, reason=reason), now)


def discard(*, selection: Selection, by: str, reason: str, now: datetime, user_id: int | None = None) -> OperatorAction:
    """
    Give dead rows up. They stay dead and visible, apart from the open ones, and hold back their keys no more.

    Transaction: as requeue.
    Order:       what waited behind a discarded row goes on without it.
    Twice:       a discarded row keeps its first reason.
    Raises:      ReasonMissing.
    """
    return _move(Asked(verb=Verb.DISCARD, selection=selection, by=by, user_id=user_id, reason=reason), now)


def requeue_dead_letters(*, ids: Sequence[int], by: str, reason: str, now: datetime) -> int:
    """Requeue these few rows and return how many moved. Raises: ReasonMissing."""
    return requeue(selection=Selection(ids=tuple(ids)), by=by, reason=reason, now=now).done_count


def discard_dead_letters(*, ids: Sequence[int], by: str, reason: str, now: datetime) -> int:
    """Discard these few rows and return how many were marked. Raises: ReasonMissing."""
    return discard(selection=Selection(ids=tuple(ids)), by=by, reason=reason, now=now).done_count


def _move(asked: Asked, now: datetime) -> OperatorAction:
    preview = preview_dead_letters(selection=asked.selection)
    if preview.is_small:
        return move_at_once(asked=asked, ids=preview.ids, now=now)
    return move_in_background(asked=asked.of(freeze(selection=asked.selection, now=now)), preview=preview, now=now)
