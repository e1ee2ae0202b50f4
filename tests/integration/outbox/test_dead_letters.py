"""outbox/dead_letters.py: operators send parked rows round again, or give them up, and say why."""

from datetime import timedelta

import pytest

from outbox.dead_letters import ReasonMissing, discard_dead_letters, requeue_dead_letters
from outbox.dispatch import Outcome
from outbox.models import Status
from outbox.testing import drain
from tests.outbox_rows import NOW, append, change, row_of

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(hours=1)


def dead(key: str = "k", **fields) -> int:
    pk = append(key)
    change(pk, status=Status.DEAD, retry_count=20, last_error="RuntimeError: x", published_at=NOW, **fields)
    return pk


def requeue(*ids: int, reason: str = "fixed") -> int:
    return requeue_dead_letters(ids=ids, by="alice", reason=reason, now=LATER)


def discard(*ids: int, reason: str = "obsolete") -> int:
    return discard_dead_letters(ids=ids, by="alice", reason=reason, now=LATER)


def test_requeue_dead_letters_sends_the_row_round_again_with_all_its_attempts(handler):
    pk = dead()

    assert requeue(pk) == 1
    row = row_of(pk)
    assert (row.status, row.retry_count, row.next_retry_at) == (Status.PENDING, 0, None)
    assert drain(now=LATER) == {Outcome.CONSUMED: 1}
    assert row_of(pk).status == Status.CONSUMED


def test_requeue_dead_letters_takes_a_discard_back():
    pk = dead()
    discard(pk)

    assert requeue(pk) == 1
    assert (row_of(pk).discarded_at, row_of(pk).discard_reason) == (None, "")


@pytest.mark.parametrize("status", [Status.PENDING, Status.PUBLISHED, Status.CONSUMED])
def test_requeue_and_discard_leave_a_row_that_is_not_dead(status):
    pk = append()
    change(pk, status=status, retry_count=3, published_at=NOW, consumed_at=NOW)

    assert (requeue(pk), discard(pk)) == (0, 0)
    assert (row_of(pk).status, row_of(pk).retry_count, row_of(pk).discarded_at) == (status, 3, None)


def test_requeue_dead_letters_moves_nothing_the_second_time():
    pk = dead()

    assert [requeue(pk), requeue(pk)] == [1, 0]


def test_requeue_dead_letters_keeps_the_order_of_a_key(handler):
    first, second = dead("a"), dead("a")

    requeue(second, first)
    drain(now=LATER)

    assert handler.event_ids == [row_of(first).event_id, row_of(second).event_id]


def test_discard_dead_letters_marks_the_row_and_keeps_it_dead():
    pk = dead()

    assert discard(pk, reason="x" * 300) == 1
    row = row_of(pk)
    assert (row.status, row.discarded_at, row.discard_reason) == (Status.DEAD, LATER, "x" * 255)


def test_discard_dead_letters_keeps_the_first_reason():
    pk = dead()

    assert [discard(pk, reason="first"), discard(pk, reason="second")] == [1, 0]
    assert row_of(pk).discard_reason == "first"


@pytest.mark.parametrize("call", [requeue, discard])
@pytest.mark.parametrize("reason", ["", "  \n"])
def test_requeue_and_discard_refuse_without_a_reason(call, reason):
    pk = dead()

    with pytest.raises(ReasonMissing):
        call(pk, reason=reason)
    assert (row_of(pk).status, row_of(pk).discarded_at) == (Status.DEAD, None)
