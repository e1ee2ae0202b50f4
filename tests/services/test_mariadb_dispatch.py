"""What dispatch does when a row is locked, a statement is stopped or a connection dies, and what it reads.

On MariaDB or MySQL.
"""

import threading
import time

import pytest
from django.db import OperationalError, connection, transaction

from outbox import dispatch, registry
from outbox.database_clock import database_now
from outbox.dispatch import Outcome, dispatch_messages
from outbox.models import Attempt, LocalMessage, OutboxMessage, Status
from smartflow.events import CATALOG
from tests.outbox_rows import EVENT_TYPE, append, change, new_row, row_of, wire
from tests.racing import run_at_once
from tests.services.test_mariadb_outbox import RowsRead

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def only_mariadb(monkeypatch):
    if connection.vendor != "mysql":
        pytest.skip("DATABASE_URL is not MariaDB's")
    monkeypatch.setattr(dispatch, "LOCK_WAIT_SECONDS", 1)
    connection.close()  # the next one is told
    yield
    connection.close()


def published(key: str, message: str) -> int:
    pk, now = append(key, message, now=database_now()), database_now()
    change(pk, status=Status.PUBLISHED, published_at=now)
    return pk


def make_batch(bad: int, *, of: int) -> list[int]:
    return [published(f"key {number}", "bad" if number == bad else "good") for number in range(of)]


def handle(pks: list[int]) -> list[Outcome]:
    return dispatch_messages(values=[wire(pk) for pk in pks], clock=database_now)


@pytest.fixture
def handled(monkeypatch):
    """Return a function that lets a bad event do what the test says; every event writes one row."""

    def let(bad):
        def apply(event, *, event_id):
            LocalMessage.objects.create(outbox_id=0, topic="effect", message_key=event_id, value="")
            if event.message == "bad":
                bad()

        monkeypatch.setitem(registry._handlers, EVENT_TYPE, apply)

    return let


def effects() -> int:
    return LocalMessage.objects.filter(topic="effect").count()


class Locked:
    """A row that another transaction has locked until it is let go."""

    def __init__(self, pk: int) -> None:
        self._pk = pk
        self._is_held, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self):
        with transaction.atomic():
            change(self._pk, last_error="locked")
            self._is_held.set()
            assert self._is_over.wait(30)
        connection.close()

    def __enter__(self):
        self._thread.start()
        assert self._is_held.wait(10)
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()


def test_dispatch_messages_handles_the_neighbours_of_one_that_waits_for_a_locked_row(handled):
    aggregate = append("another", now=database_now())
    handled(lambda: change(aggregate, last_error="handled"))
    pks = make_batch(11, of=40)

    started = time.monotonic()
    with Locked(aggregate):
        outcomes = handle(pks)
        seconds = time.monotonic() - started

    assert outcomes == [Outcome.RETRY if number == 11 else Outcome.CONSUMED for number in range(40)]
    assert (effects(), seconds < 4) == (39, True)  # twice the wait for the lock
    row = row_of(pks[11])
    assert (row.status, row.retry_count, row.next_retry_at > database_now()) == (Status.PENDING, 1, True)
    change(pks[11], next_retry_at=None)
    assert handle([pks[11]]) == [Outcome.CONSUMED]


def test_dispatch_messages_costs_no_attempt_however_often_a_locked_row_is_met(handled):
    aggregate, pk = append("another", now=database_now()), published("key", "bad")
    handled(lambda: change(aggregate, last_error="handled"))

    with Locked(aggregate):
        assert [handle([pk]) for _ in range(3)] == [[Outcome.RETRY]] * 3

    assert (row_of(pk).retry_count, row_of(pk).status) == (1, Status.PENDING)
    assert list(Attempt.objects.values_list("message_id", "number")) == [(pk, 1), (pk, 2), (pk, 3)]


def test_dispatch_messages_leaves_a_row_that_another_consumer_has_in_hand(handled):
    handled(lambda: None)
    first, second = published("a", "good"), published("b", "good")

    with Locked(first):
        assert handle([first, second]) == [Outcome.DEFERRED, Outcome.CONSUMED]

    assert (row_of(first).status, row_of(first).retry_count) == (Status.PUBLISHED, 0)
    assert handle([first]) == [Outcome.CONSUMED]


def stop_statement():
    with connection.cursor() as cursor:
        cursor.execute("KILL QUERY CONNECTION_ID()")


def kill_connection():
    with connection.cursor() as cursor:
        cursor.execute("KILL CONNECTION_ID()")


def send_too_much():
    with connection.cursor() as cursor:
        cursor.execute("SELECT LENGTH(%s)", ["x" * (65 * 1024 * 1024)])


@pytest.mark.parametrize("bad", [stop_statement, kill_connection, send_too_much])
def test_dispatch_messages_handles_the_neighbours_of_one_whose_statement_ends_badly(handled, bad):
    handled(bad)
    pks = make_batch(5, of=8)

    assert handle(pks) == [Outcome.RETRY if number == 5 else Outcome.CONSUMED for number in range(8)]
    assert effects() == 7
    assert (row_of(pks[5]).status, row_of(pks[5]).retry_count) == (Status.PENDING, 1)


def test_dispatch_messages_is_not_troubled_by_a_connection_that_was_lost_meanwhile(handled):
    handled(lambda: None)
    pks = make_batch(-1, of=3)
    values = [wire(pk) for pk in pks]
    with connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        number = cursor.fetchone()[0]

    def kill():
        with connection.cursor() as cursor:
            cursor.execute(f"KILL {number}")

    assert run_at_once(kill) == [None]
    assert dispatch_messages(values=values, clock=database_now) == [Outcome.CONSUMED] * 3
    assert (effects(), Attempt.objects.exists()) == (3, False)


def test_dispatch_messages_divides_nothing_while_the_server_does_not_answer(handled, monkeypatch):
    calls = []

    def lose():
        calls.append("bad")
        raise OperationalError(2013, "Lost connection to server during query")

    handled(lose)
    pks = make_batch(0, of=8)
    values = [wire(pk) for pk in pks]
    monkeypatch.setattr("outbox.dispatch.answers_after", lambda error: False)

    with pytest.raises(OperationalError):
        dispatch_messages(values=values, clock=database_now)
    assert calls == ["bad"]
    assert not Attempt.objects.exists()


PASSING_TYPE = next(event.event_type for event in CATALOG.values() if not event.blocks_key_when_dead)
MANY = 6_000


def fill(key: str, status: str, **fields) -> None:
    """Write many rows of one key: dead ones, or held ones behind them."""
    now = database_now()
    common = {"biz_type": EVENT_TYPE, "topic": "t", "payload": "{}", "created_at": now, "updated_at": now} | fields
    rows = [new_row(event_id=f"{key}{status}{number}", message_key=key, status=status) for number in range(MANY)]
    for row in rows:
        row.ready_shard = None
        for name, value in common.items():
            setattr(row, name, value)
    OutboxMessage.objects.bulk_create(rows, batch_size=5000)


def rows_read_by_handling(pks: list[int]) -> tuple[list[Outcome], int]:
    values, counter = [wire(pk) for pk in pks], RowsRead()
    with connection.execute_wrapper(counter):
        outcomes = dispatch_messages(values=values, clock=database_now)
    return outcomes, max(count for _, count in counter.by_statement)


def test_dispatch_messages_reads_few_rows_however_many_are_held_in_a_key(handled):
    handled(lambda: None)
    dead, early = append("a"), published("a", "good")
    change(dead, status=Status.DEAD)
    fill("a", Status.PENDING)
    late = published("a", "good")

    outcomes, read = rows_read_by_handling([early, late])

    assert (outcomes, read < 50) == ([Outcome.BLOCKED] * 2, True), read
    change(dead, discarded_at=database_now(), next_retry_at=database_now())
    change(early, status=Status.PUBLISHED, published_at=database_now())
    outcomes, read = rows_read_by_handling([early, published("b", "good")])
    assert (outcomes, read < 50) == ([Outcome.CONSUMED] * 2, True), read


@pytest.mark.parametrize("fields", [{"biz_type": PASSING_TYPE}, {"discarded": True}], ids=["may be passed", "given up"])
def test_dispatch_messages_reads_few_rows_however_many_dead_ones_of_a_key_hold_nobody_back(handled, fields):
    handled(lambda: None)
    now = database_now()
    fill("a", Status.DEAD, **({"discarded_at": now, "next_retry_at": now} if "discarded" in fields else fields))
    pk, neighbour = published("a", "good"), published("b", "good")
    change(append("c"), status=Status.DEAD)

    outcomes, read = rows_read_by_handling([pk, neighbour])

    assert outcomes == [Outcome.CONSUMED] * 2
    # the first thousand tell that there are many; each is a row of the table as well, and of both are two kinds counted
    assert read < 2100, read


def test_dispatch_messages_is_held_by_a_dead_row_among_many_that_hold_nobody_back(handled):
    handled(lambda: None)
    fill("a", Status.DEAD, biz_type=PASSING_TYPE)
    dead, follower = append("a"), published("a", "good")
    change(dead, status=Status.DEAD)

    assert rows_read_by_handling([follower, published("b", "good")])[0] == [Outcome.BLOCKED, Outcome.CONSUMED]
