"""What operators asked for: the record of every verb, and the background work of those that move many rows.

The background work goes through the rows by id, a batch a transaction, with the progress written in the same one: a
worker that is killed leaves an action that the next one takes over behind the last batch, and nothing is done twice.
Called by dead_letters.py and pauses.py, by a job, and by the command that waits for its own action.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Concat, Right

from outbox.database_errors import repeat_on_conflict
from outbox.models import ACTION_IDS_LENGTH, OperatorAction, OutboxMessage, Status
from outbox.selection import STEP, Preview, Selection, look_at_dead_letters, walk_dead_letters
from outbox.wakeup import wake_after_commit
from smartflow.kernel.clock import Clock
from smartflow.kernel.errors import Conflict, Invalid
from smartflow.kernel.text import noop as _

logger = logging.getLogger(__name__)

# How long an action stays with a worker that says nothing more. Larger: a killed worker's action waits longer.
LEASE_SECONDS = 8
REASON_LENGTH = 255
# Counting, so many steps are looked at before the lease is renewed. Larger: a request to stop is heard later.
LOOKS_A_LEASE = 10

Verb, State = OperatorAction.Verb, OperatorAction.State
_OPEN = (State.WAITING, State.RUNNING)


class ReasonMissing(Invalid):
    """A verb needs a reason: it is what the next operator reads."""

    code = "40004"
    message = _("A reason is needed.")


class ActionOver(Conflict):
    """There is nothing left to stop."""

    message = _("This action is over already.")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an operator asked for. `user_id` is None for whoever typed a command."""

    verb: str
    by: str
    reason: str
    selection: Selection = Selection()  # noqa: RUF009 - frozen
    user_id: int | None = None

    def of(self, selection: Selection) -> "Asked":
        """Return the same for other rows."""
        return replace(self, selection=selection)


def check_reason(reason: str) -> None:
    """Raises: ReasonMissing."""
    if not reason.strip():
        raise ReasonMissing


def record(*, asked: Asked, now: datetime, selection: dict[str, Any] | None = None, **fields: Any) -> OperatorAction:
    """
    Write the audit entry of a verb: who, when, why, what for and how many.

    Transaction: the caller's, with what the verb changed.
    Raises:      ReasonMissing.
    """
    return _told(_write(asked, now, selection, **fields))


def _write(asked: Asked, now: datetime, selection: dict[str, Any] | None = None, **fields: Any) -> OperatorAction:
    check_reason(asked.reason)
    return OperatorAction.objects.create(
        verb=asked.verb,
        selection=asked.selection.to_json() if selection is None else selection,
        reason=asked.reason.strip()[:REASON_LENGTH],
        user_id=asked.user_id,
        by=asked.by,
        requested_at=now,
        **fields,
    )


def _told(action: OperatorAction) -> OperatorAction:
    logger.info(
        "An operator acted on the outbox",
        extra={"action": action.pk, "verb": action.verb, "by": action.by, "rows": action.done_count},
    )
    return action


def record_done(
    *, asked: Asked, now: datetime, count: int, expected: int | None = None, selection: dict[str, Any] | None = None
) -> OperatorAction:
    """Write the audit entry of a verb that is done. Transaction and errors as record."""
    done = {"state": State.DONE, "finished_at": now, "done_count": count}
    return record(
        asked=asked, now=now, selection=selection, expected_count=count if expected is None else expected, **done
    )


def move_at_once(*, asked: Asked, ids: Sequence[int], now: datetime) -> OperatorAction:
    """
    Move these rows and write the record.

    Transaction: one of its own for both.
    Raises:      ReasonMissing.
    """
    check_reason(asked.reason)
    return repeat_on_conflict(lambda: _move_at_once(asked, ids, now))


def _move_at_once(asked: Asked, ids: Sequence[int], now: datetime) -> OperatorAction:
    with transaction.atomic():
        chosen = asked.selection.ids
        expected = len(ids if chosen is None else set(chosen))
        action = _write(asked, now, state=State.DONE, finished_at=now, expected_count=expected)
        action.done_count = _move_rows(action, asked.selection, ids, now)
        action.save(update_fields=["done_count"])
    return _told(action)


def move_in_background(*, asked: Asked, preview: Preview, now: datetime) -> OperatorAction:
    """Write the record from which the background job works. Raises: ReasonMissing."""
    return record(asked=asked, now=now, expected_count=preview.count.value)


def request_stop(*, action_id: int, by: str) -> None:
    """
    Stop an action's background work before its next batch. Rows that were moved stay moved.

    Raises: ActionOver.
    """
    still_open = OperatorAction.objects.filter(pk=action_id, state__in=_OPEN)
    if not still_open.update(is_stop_requested=True, stopped_by=by[:150]):
        raise ActionOver
    logger.info("An operator stopped an action", extra={"action": action_id, "by": by})


def run_actions(*, clock: Clock, seconds: float, is_stopping: Callable[[], bool] = lambda: False) -> int:
    """
    Work on what is left to do, the oldest action first, for up to `seconds`; return how many actions were taken.

    Twice: safe beside itself; an action has one worker at a time. A worker that is stopping ends behind the batch.
    """
    until = time.monotonic() + seconds
    taken: list[int] = []
    while time.monotonic() < until and not is_stopping():
        free = OperatorAction.objects.filter(_is_free(clock()), state__in=_OPEN).order_by("id")
        action_id = free.values_list("id", flat=True).first()
        if action_id is None:
            break
        taken.append(action_id)
        work_on(action_id=action_id, clock=clock, seconds=until - time.monotonic(), is_stopping=is_stopping)
    return len(set(taken))


def work_on(
    *, action_id: int, clock: Clock, seconds: float, is_stopping: Callable[[], bool] = lambda: False
) -> OperatorAction:
    """
    Take an action unless somebody else has it, work on it for up to `seconds`, and return how far it is now.

    Transaction: one a batch.
    """
    until = time.monotonic() + seconds
    if _take(action_id, clock()):
        try:
            is_over = _move_until(action_id, clock, lambda: is_stopping() or time.monotonic() >= until)
        except KeyboardInterrupt:
            _give_back(action_id)
            raise
        if not is_over:
            _give_back(action_id)
    return OperatorAction.objects.get(pk=action_id)


def _move_until(action_id: int, clock: Clock, is_time_over: Callable[[], bool]) -> bool:
    if _is_untouched(action_id):
        _count(action_id, clock, is_time_over)
    while True:
        # one batch in any case: an action whose count took all the time would never begin
        is_over = repeat_on_conflict(lambda: _move_batch(action_id, clock()))
        if is_over or is_time_over():
            return is_over


def _give_back(action_id: int) -> None:
    OperatorAction.objects.filter(pk=action_id).update(lease_until=None)


def _is_free(now: datetime) -> Q:
    return Q(lease_until__isnull=True) | Q(lease_until__lte=now)


def _take(action_id: int, now: datetime) -> bool:
    mine = OperatorAction.objects.filter(_is_free(now), pk=action_id, state__in=_OPEN)
    return mine.update(state=State.RUNNING, lease_until=now + timedelta(seconds=LEASE_SECONDS)) == 1


def _is_untouched(action_id: int) -> bool:
    return OperatorAction.objects.filter(pk=action_id, after_id=0, is_stop_requested=False).exists()


def _count(action_id: int, clock: Clock, is_time_over: Callable[[], bool]) -> None:
    """Replace the dry run's "at least", against which the progress is shown; when time is over, by a larger one."""
    action = OperatorAction.objects.get(pk=action_id)
    going_on = OperatorAction.objects.filter(pk=action_id, is_stop_requested=False)
    count = 0
    for number, look in enumerate(walk_dead_letters(selection=Selection.from_json(action.selection))):
        count += len(look.ids)
        if look.is_end:
            break
        lease = clock() + timedelta(seconds=LEASE_SECONDS)
        if number % LOOKS_A_LEASE == 0 and not going_on.update(lease_until=lease):
            return
        if is_time_over():
            count = max(count, action.expected_count)
            break
    OperatorAction.objects.filter(pk=action_id).update(expected_count=count)


def _move_batch(action_id: int, now: datetime) -> bool:
    """Move the rows of one step and write the progress in the same transaction; return whether the action is over."""
    with transaction.atomic():
        # The lock, and not the lease, is what keeps two workers from doing a batch twice: the second one starts where
        # the first one's transaction ended.
        action = OperatorAction.objects.select_for_update().get(pk=action_id)
        if action.state not in _OPEN:
            return True
        if action.is_stop_requested:
            _end(action, State.STOPPED, now)
            return True
        selection = Selection.from_json(action.selection)
        look = look_at_dead_letters(selection=selection, after_id=action.after_id, limit=STEP)
        action.done_count += _move_rows(action, selection, look.ids, now)
        action.after_id = look.last_id
        action.lease_until = now + timedelta(seconds=LEASE_SECONDS)
        if look.is_end:
            _end(action, State.DONE, now)
        else:
            action.save(update_fields=["done_count", "after_id", "lease_until"])
    return look.is_end


def _end(action: OperatorAction, state: str, now: datetime) -> None:
    action.state, action.finished_at, action.lease_until = state, now, None
    action.save(update_fields=["state", "finished_at", "lease_until", "done_count", "after_id"])


def _move_rows(action: OperatorAction, selection: Selection, ids: Sequence[int], now: datetime) -> int:
    # By primary key alone: through an index of the status this would lock index before row, where dispatch locks row
    # before index. So what the row says is looked at again here, under the lock.
    rows = OutboxMessage.objects.select_for_update().filter(id__in=ids).order_by("id")
    dead = {pk: gone for pk, status, gone in rows.values_list("id", "status", "discarded_at") if status == Status.DEAD}
    known = Right(Concat("action_ids", Value(f"{action.pk} ")), ACTION_IDS_LENGTH)
    if action.verb == Verb.DISCARD:
        open_ids = [pk for pk, discarded_at in dead.items() if discarded_at is None]
        changes = {"discarded_at": now, "discard_reason": action.reason, "next_retry_at": now}
        return OutboxMessage.objects.filter(id__in=open_ids).update(action_ids=known, updated_at=now, **changes)
    chosen = [
        pk for pk, gone in dead.items() if selection.ids is not None or (gone is not None) == selection.is_discarded
    ]
    if chosen:
        wake_after_commit()
    return OutboxMessage.objects.filter(id__in=chosen).update(
        status=Status.PENDING,
        ready_shard=F("shard"),
        ready_at=now,
        retry_count=0,
        next_retry_at=None,
        discarded_at=None,
        discard_reason="",
        action_ids=known,
        updated_at=now,
    )
