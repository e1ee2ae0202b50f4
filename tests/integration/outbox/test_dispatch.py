"""outbox/dispatch.py: handle once, in order, and park what no retry can mend."""

from datetime import datetime, timedelta

import pytest
from django.db import InterfaceError, OperationalError, connection

from outbox import registry
from outbox.admin.display import state_of
from outbox.dispatch import DEFER_SECONDS, KEPT_TRIES, Outcome, dispatch_message, dispatch_messages
from outbox.models import Attempt, KeyHold, LocalMessage, OutboxMessage, Status, Worker
from outbox.registry import HandlerMissing
from outbox.retry import RETRY_POLICY
from outbox.tally import TALLY
from outbox.upkeep import prune_consumed
from outbox.workers import worker_name
from smartflow.events import EventUnreadable
from smartflow.kernel.errors import Conflict, Invalid, Unavailable
from tests.outbox_rows import EVENT_TYPE, NOW, append, change, claim, row_of, wire

pytestmark = pytest.mark.django_db
CONSUMER = worker_name(Worker.Kind.CONSUMER)


@pytest.fixture
def dispatch(clock):
    def run(pk: int) -> Outcome:
        return dispatch_message(value=wire(pk), clock=clock)

    return run


def published(key: str = "k", message: str = "hello", **fields) -> int:
    pk = append(key, message)
    change(pk, status=Status.PUBLISHED, published_at=NOW, **fields)
    return pk


def test_dispatch_message_runs_the_handler_and_marks_consumed(dispatch, handler):
    pk = published(message="你好")

    assert dispatch(pk) == Outcome.CONSUMED
    row = row_of(pk)
    assert (row.status, row.consumed_at, row.published_at) == (Status.CONSUMED, NOW, NOW)
    assert row.consumed_by == CONSUMER
    assert (handler.messages, handler.event_ids) == (["你好"], [row.event_id])


def test_dispatch_message_runs_the_handler_once_when_the_message_comes_again(dispatch, handler):
    pk = published()

    assert [dispatch(pk) for _ in range(3)] == [Outcome.CONSUMED, Outcome.DUPLICATE, Outcome.DUPLICATE]
    assert len(handler.messages) == 1


def test_dispatch_message_leaves_a_dead_row_alone(dispatch, handler):
    pk = published()
    change(pk, status=Status.DEAD)

    assert dispatch(pk) == Outcome.DUPLICATE
    assert (row_of(pk).status, handler.messages) == (Status.DEAD, [])


@pytest.mark.parametrize("waiting", ["pending", "published", "in flight"])
def test_dispatch_message_defers_when_an_earlier_row_of_the_key_is_unfinished(dispatch, handler, waiting):
    head = append("a")
    if waiting == "in flight":
        claim()
    change(head, **{"published": {"status": "published", "published_at": NOW}}.get(waiting, {}))
    follower = published("a")

    assert dispatch(follower) == Outcome.DEFERRED
    row = row_of(follower)
    assert (row.status, row.retry_count) == (Status.PENDING, 0)
    assert row.next_retry_at == NOW + timedelta(seconds=DEFER_SECONDS)
    assert handler.messages == []


def test_dispatch_message_waits_as_long_as_the_earlier_row_of_the_key_waits_for_its_retry(dispatch, handler):
    moment = NOW + timedelta(seconds=81)
    change(append("a"), next_retry_at=moment, retry_count=9)
    follower = published("a")

    assert dispatch(follower) == Outcome.DEFERRED
    row = row_of(follower)
    assert (row.status, row.retry_count, row.next_retry_at) == (Status.PENDING, 0, moment)
    assert handler.messages == []


@pytest.mark.parametrize("head_is", [{"status": Status.DEAD}, {"ready_shard": None}], ids=["dead", "held"])
def test_dispatch_message_holds_what_came_behind_a_row_that_blocks_its_key(dispatch, handler, head_is):
    head = append("a")
    change(head, **head_is)
    follower = published("a")

    assert dispatch(follower) == Outcome.BLOCKED
    row = row_of(follower)
    assert (row.status, row.ready_shard, row.next_retry_at, row.retry_count) == (Status.PENDING, None, None, 0)
    assert (handler.messages, KeyHold.objects.get(pk="a").head_id) == ([], head)
    assert dispatch(published("b")) == Outcome.CONSUMED


@pytest.mark.parametrize("is_over", [{"status": Status.CONSUMED}, {"status": Status.DEAD, "discarded_at": NOW}])
def test_dispatch_message_goes_on_when_the_earlier_row_of_the_key_is_over(dispatch, handler, is_over):
    change(append("a"), consumed_at=NOW, **is_over)

    assert dispatch(published("a")) == Outcome.CONSUMED


def test_dispatch_message_holds_behind_the_first_of_several_rows_that_block_the_key(dispatch, handler):
    given_up, dead, waiting, follower = append("a"), append("a"), append("a"), published("a")
    change(given_up, status=Status.DEAD, discarded_at=NOW)
    change(dead, status=Status.DEAD)
    change(waiting, next_retry_at=NOW + timedelta(seconds=9))

    assert dispatch(follower) == Outcome.BLOCKED
    assert KeyHold.objects.get().head_id == dead


def test_dispatch_message_goes_on_behind_a_dead_row_of_a_type_that_lets_followers_pass(dispatch, handler, monkeypatch):
    monkeypatch.setattr("outbox.predecessors.blocking_types", frozenset)
    change(append("a"), status=Status.DEAD)

    assert dispatch(published("a")) == Outcome.CONSUMED
    assert not KeyHold.objects.exists()


def test_dispatch_message_goes_on_when_the_unfinished_row_is_of_another_key_or_later(dispatch, handler):
    append("b")
    pk = published("a")
    append("a")

    assert dispatch(pk) == Outcome.CONSUMED


def test_dispatch_message_rolls_the_handlers_writes_back_when_it_fails(dispatch, monkeypatch):
    def write_then_fail(event, *, event_id):
        LocalMessage.objects.create(outbox_id=0, topic="t", message_key="k", value="effect")
        raise RuntimeError("after the write")

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, write_then_fail)

    assert dispatch(published()) == Outcome.RETRY
    assert not LocalMessage.objects.exists()


@pytest.mark.parametrize(("failures", "seconds"), [(0, 1), (1, 4), (2, 9), (9, 100), (15, 100)])
def test_dispatch_message_waits_the_square_of_the_attempt_when_the_handler_fails(dispatch, handler, failures, seconds):
    pk = published(retry_count=failures)
    handler.error = RuntimeError("not yet")

    assert dispatch(pk) == Outcome.RETRY
    row = row_of(pk)
    assert (row.status, row.retry_count, row.last_error) == (Status.PENDING, failures + 1, "RuntimeError: not yet")
    assert NOW + timedelta(seconds=seconds) <= row.next_retry_at <= NOW + timedelta(seconds=seconds * 1.1)


def test_dispatch_message_buries_the_row_after_twenty_attempts(dispatch, handler):
    pk = published()
    handler.error = RuntimeError("never")

    outcomes = [dispatch(pk) for _ in range(21)]

    assert outcomes == [Outcome.RETRY] * 19 + [Outcome.DEAD, Outcome.DUPLICATE]
    row = row_of(pk)
    assert (row.status, row.retry_count, row.next_retry_at) == (Status.DEAD, 20, None)
    tries = Attempt.objects.filter(message_id=pk).order_by("id")
    assert [one.number for one in tries] == list(range(1, 21))
    assert {(one.step, one.by, one.at, one.error) for one in tries} == {
        (Attempt.Step.HANDLE, CONSUMER, NOW, "RuntimeError: never")
    }
    assert all(0 < one.seconds < 5 for one in tries)


@pytest.mark.parametrize("error", [Invalid("no"), Conflict("no"), EventUnreadable("no"), HandlerMissing("no")])
def test_dispatch_message_buries_the_row_at_once_when_no_retry_can_help(dispatch, handler, error):
    pk = published()
    handler.error = error

    assert dispatch(pk) == Outcome.DEAD
    assert (row_of(pk).status, row_of(pk).retry_count) == (Status.DEAD, 1)
    assert row_of(pk).last_error.startswith(type(error).__name__)


def try_until(moment: datetime, pk: int, dispatch, clock) -> int:
    """Handle the row each time that its retry is due, until the moment or its end; return how often."""
    count = 0
    while clock.now < moment and dispatch(pk) == Outcome.RETRY:
        clock.now, count = row_of(pk).next_retry_at, count + 1
    return count


def test_dispatch_message_burns_no_attempts_while_a_part_is_unavailable(dispatch, handler, clock):
    """An hour and a half of it: it would be dead after twenty attempts, in 22 minutes."""
    pk = published()
    handler.error = Unavailable("the model is away")

    tries = try_until(NOW + timedelta(minutes=90), pk, dispatch, clock)

    row = row_of(pk)
    assert (row.status, row.retry_count, tries > 50) == (Status.PENDING, 1, True)
    assert (state_of(row, now=clock.now), row.last_error) == ("retrying", "Unavailable: the model is away")
    numbers = Attempt.objects.filter(message_id=pk).order_by("id").values_list("number", flat=True)
    assert list(numbers) == list(range(1, KEPT_TRIES + 1))
    handler.error = None
    assert dispatch(pk) == Outcome.CONSUMED


def test_dispatch_message_buries_the_row_when_a_part_is_unavailable_for_days(dispatch, handler, clock):
    pk = published()
    handler.error = Unavailable("the model is away")
    clock.advance(RETRY_POLICY.patience.total_seconds() - 1000)

    try_until(NOW + 2 * RETRY_POLICY.patience, pk, dispatch, clock)

    row = row_of(pk)
    assert (row.status, row.retry_count) == (Status.DEAD, 20)
    assert timedelta(0) < clock.now - NOW - RETRY_POLICY.patience < timedelta(minutes=40)


def test_dispatch_message_has_all_other_attempts_left_when_a_part_was_unavailable(dispatch, handler):
    pk = published()
    handler.error = Unavailable("away")
    for _ in range(30):
        assert dispatch(pk) == Outcome.RETRY
    handler.error = RuntimeError("its own")

    assert [dispatch(pk) for _ in range(19)] == [Outcome.RETRY] * 18 + [Outcome.DEAD]


def test_dispatch_message_buries_the_row_when_nothing_handles_its_type(dispatch, monkeypatch):
    monkeypatch.setattr(registry, "_handlers", {})
    pk = published()

    assert dispatch(pk) == Outcome.DEAD
    assert "nothing handles" in row_of(pk).last_error


@pytest.mark.parametrize(
    ("found", "replacement"),
    [('"event_version":2', '"event_version":99'), ('"role":"user"', '"role":7'), (EVENT_TYPE, "no.such.type")],
)
@pytest.mark.usefixtures("handler")
def test_dispatch_message_buries_the_row_when_its_event_cannot_be_read(dispatch, found, replacement):
    pk = published()
    change(pk, payload=row_of(pk).payload.replace(found, replacement))

    assert dispatch(pk) == Outcome.DEAD


def test_dispatch_message_keeps_secrets_out_of_the_last_error(dispatch, handler):
    pk = published()
    handler.error = RuntimeError(
        "mysql://root:hunter2@db/x refused, api_key=abc123 Bearer abcdefghijkl sk-abcdefghijkl"
    )

    dispatch(pk)

    for kept in (row_of(pk).last_error, Attempt.objects.get(message_id=pk).error):
        assert not [secret for secret in ("hunter2", "abc123", "abcdefghijkl") if secret in kept]


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Unspeakable(), "Unspeakable: (its text cannot be made: ValueError)"),
        (SystemExit(3), "RuntimeError: the handler asked the process to end: 3"),
    ],
    ids=["no text", "exit"],
)
def test_dispatch_message_counts_an_attempt_whatever_the_handler_raises(dispatch, handler, error, text):
    pk = published()
    handler.error = error

    assert dispatch(pk) == Outcome.RETRY
    assert row_of(pk).last_error == text


def test_dispatch_message_bounds_the_last_error_and_survives_text_that_is_no_unicode(dispatch, handler):
    pk = published()
    handler.error = RuntimeError("\ud800" + "你" * 5000)

    assert dispatch(pk) == Outcome.RETRY
    assert len(row_of(pk).last_error.encode()) <= 2000
    assert Attempt.objects.get(message_id=pk).error == row_of(pk).last_error


@pytest.mark.usefixtures("handler")
def test_dispatch_message_says_that_text_that_is_no_unicode_is_no_envelope(clock):
    value = wire(published(message="SURROGATE")).replace(b"SURROGATE", b"\\ud800")

    assert dispatch_message(value=value, clock=clock) == Outcome.UNREADABLE


def broken_statement(event, *, event_id):
    with connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM agent_outbox_messages")


def test_dispatch_message_counts_an_attempt_when_the_database_refuses_the_handlers_statement(dispatch, monkeypatch):
    monkeypatch.setitem(registry._handlers, EVENT_TYPE, broken_statement)
    pk = published()

    assert dispatch(pk) == Outcome.RETRY
    assert row_of(pk).retry_count == 1
    assert "no_such_column" in row_of(pk).last_error


def test_dispatch_message_raises_and_counts_nothing_when_the_database_is_away(dispatch, handler):
    pk = published()
    handler.error = InterfaceError("connection already closed")

    with pytest.raises(InterfaceError):
        dispatch(pk)
    assert (row_of(pk).status, row_of(pk).retry_count) == (Status.PUBLISHED, 0)
    assert not Attempt.objects.exists()


def test_dispatch_message_runs_again_when_it_lost_a_conflict(dispatch, handler, monkeypatch):
    pk = published()
    errors = [OperationalError(1213, "deadlock"), OperationalError(1020, "changed")]
    monkeypatch.setattr("outbox.database_errors.connection", FakeConnection())

    def lose_twice(event, *, event_id):
        if errors:
            raise errors.pop()
        handler(event, event_id=event_id)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, lose_twice)

    assert dispatch(pk) == Outcome.CONSUMED
    assert len(handler.messages) == 1


class FakeConnection:
    """What repeat_on_conflict sees outside a test: no transaction around the dispatch."""

    vendor = "mysql"
    in_atomic_block = False


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"[]", b"{}", b'{"outbox_id":"1"}', b'{"outbox_id":%d}' % 10**40])
def test_dispatch_message_says_so_when_the_message_is_no_envelope(clock, value):
    assert dispatch_message(value=value, clock=clock) == Outcome.UNREADABLE


@pytest.mark.parametrize("outbox_id", [0, -1, 10**9, 2**63])
def test_dispatch_message_says_so_when_the_message_has_no_row(clock, outbox_id, handler):
    pk = append()
    value = wire(pk).replace(b'"outbox_id":%d' % pk, b'"outbox_id":%d' % outbox_id)

    assert dispatch_message(value=value, clock=clock) == Outcome.UNKNOWN
    assert handler.messages == []


def test_dispatch_message_of_a_row_that_was_pruned_has_no_effect(dispatch, clock, handler):
    pk = published()
    message = wire(pk)
    dispatch(pk)
    clock.advance(8 * 86400)
    assert prune_consumed(older_than=clock.now) == 1

    assert dispatch_message(value=message, clock=clock) == Outcome.UNKNOWN
    assert len(handler.messages) == 1


def test_dispatch_message_leaves_a_row_alone_when_the_message_is_of_another_event(clock, handler):
    pk = published()
    value = wire(pk).replace(row_of(pk).event_id.encode(), b"another")

    assert dispatch_message(value=value, clock=clock) == Outcome.UNKNOWN
    assert row_of(pk).status == Status.PUBLISHED


def test_dispatch_message_consumes_a_row_whose_relay_died_before_the_settle(dispatch, handler):
    pk = append()
    claim()

    assert dispatch(pk) == Outcome.CONSUMED
    row = row_of(pk)
    assert (row.claim_token, row.lease_until, row.published_at) == (None, None, NOW)


def test_the_last_failure_of_a_consumer_leaves_a_row_that_another_consumed_meanwhile(dispatch, monkeypatch):
    """Between the rollback of the handler's transaction and the record of its failure another consumer may win."""
    pk = published()

    def fail_after_another_consumed(event, *, event_id):
        raise RuntimeError("late")

    def another_consumes(error):
        OutboxMessage.objects.filter(pk=pk).update(status=Status.CONSUMED, consumed_at=NOW)
        return str(error)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, fail_after_another_consumed)
    monkeypatch.setattr("outbox.dispatch.describe_error", another_consumes)

    assert dispatch(pk) == Outcome.DUPLICATE
    assert (row_of(pk).status, row_of(pk).retry_count) == (Status.CONSUMED, 0)
    assert not Attempt.objects.exists()


# --- many messages at once


@pytest.fixture
def dispatch_all(clock):
    def run(*pks: int) -> list[Outcome]:
        return dispatch_messages(values=[wire(pk) for pk in pks], clock=clock)

    return run


def test_dispatch_messages_handles_all_in_one_transaction_with_few_statements(
    dispatch_all, handler, django_assert_num_queries
):
    pks = [published(f"key {number % 5}", str(number)) for number in range(50)]

    values = [wire(pk) for pk in pks]
    with django_assert_num_queries(5):  # savepoint, lock, predecessors, consumed, release
        outcomes = dispatch_messages(values=values, clock=lambda: NOW)
    assert outcomes == [Outcome.CONSUMED] * 50
    assert handler.messages == [str(number) for number in range(50)]
    assert set(OutboxMessage.objects.values_list("status", flat=True)) == {Status.CONSUMED}


def test_dispatch_messages_isolates_a_bad_message_and_handles_its_neighbours_once(dispatch_all, handler, monkeypatch):
    pks = [published(f"key {number}", str(number)) for number in range(8)]

    def refuse_five(event, *, event_id):
        if event.message == "5":
            raise Invalid("bad")
        handler(event, event_id=event_id)
        LocalMessage.objects.create(outbox_id=0, topic="effect", message_key=event.message, value="")

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, refuse_five)
    outcomes = dispatch_all(*pks)

    assert outcomes == [Outcome.DEAD if number == 5 else Outcome.CONSUMED for number in range(8)]
    effects = LocalMessage.objects.filter(topic="effect").order_by("pk").values_list("message_key", flat=True)
    assert list(effects) == ["0", "1", "2", "3", "4", "6", "7"]


def test_dispatch_messages_holds_back_only_the_key_of_a_failing_message(dispatch_all, handler, monkeypatch):
    head, follower, other = published("a", "head"), published("a", "follower"), published("b", "other")

    def fail_head(event, *, event_id):
        if event.message == "head":
            raise RuntimeError("not yet")
        handler(event, event_id=event_id)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, fail_head)

    assert dispatch_all(head, follower, other) == [Outcome.RETRY, Outcome.DEFERRED, Outcome.CONSUMED]
    assert row_of(follower).retry_count == 0


def test_dispatch_messages_keeps_the_order_of_a_key_when_its_messages_come_in_another(dispatch_all, handler):
    first, second, third = published("a", "1"), published("a", "2"), published("a", "3")

    assert dispatch_all(third, first, second) == [Outcome.CONSUMED] * 3
    assert handler.messages == ["1", "2", "3"]


def test_dispatch_messages_defers_every_row_behind_one_that_did_not_come(dispatch_all, handler):
    _missing, second, third, other = published("a"), published("a"), published("a"), published("b", "other")

    assert dispatch_all(second, third, other) == [Outcome.DEFERRED, Outcome.DEFERRED, Outcome.CONSUMED]
    assert handler.messages == ["other"]


def test_dispatch_messages_handles_a_message_once_when_the_batch_holds_it_twice(dispatch_all, handler):
    pk = published(message="once")

    assert dispatch_all(pk, pk) == [Outcome.CONSUMED, Outcome.DUPLICATE]
    assert handler.messages == ["once"]


def test_dispatch_messages_goes_on_behind_what_cannot_be_read(clock, handler):
    pk = published()

    outcomes = dispatch_messages(values=[b"no envelope", wire(pk), b"{}"], clock=clock)
    assert outcomes == [Outcome.UNREADABLE, Outcome.CONSUMED, Outcome.UNREADABLE]


def test_dispatch_messages_of_nothing_does_nothing(clock):
    assert dispatch_messages(values=[], clock=clock) == []


def test_dispatch_messages_holds_the_followers_of_a_message_that_dies_in_the_same_batch(
    dispatch_all, handler, monkeypatch
):
    head, other, follower = published("a", "head"), published("b", "other"), published("a", "follower")

    def refuse_head(event, *, event_id):
        if event.message == "head":
            raise Invalid("bad")
        handler(event, event_id=event_id)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, refuse_head)

    assert dispatch_all(head, other, follower) == [Outcome.DEAD, Outcome.CONSUMED, Outcome.BLOCKED]
    assert KeyHold.objects.get().head_id == head


def test_dispatch_messages_counts_what_became_of_them(dispatch_all, handler, monkeypatch):
    def fail_some(event, *, event_id):
        if event.message != "good":
            raise {"bad": Invalid, "late": RuntimeError}[event.message](event.message)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, fail_some)
    pks = [published(f"key {number}", text) for number, text in enumerate(("good", "good", "bad", "late"))]
    TALLY.take()

    dispatch_all(*pks)
    dispatch_all(*pks[:3])

    assert TALLY.take() == {"consumed": 2, "dead": 1, "retried": 1, "duplicates": 3}
