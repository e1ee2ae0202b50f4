"""What the outbox asks of MariaDB itself: plans without a sort, moments in microseconds, keys compared by bytes."""

import re
import threading
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from outbox import dispatch, relay
from outbox.database_clock import database_now
from outbox.database_errors import repeat_on_conflict
from outbox.models import OutboxMessage, Status
from tests.outbox_rows import EVENT_TYPE, NOW, append, change, claim, row_of, wire
from tests.racing import run_at_once

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]
OLD = NOW - timedelta(days=30)


@pytest.fixture(autouse=True)
def only_mariadb():
    if connection.vendor != "mysql":
        pytest.skip("DATABASE_URL is not MariaDB's")


def make_rows(count: int, status: str, *, keys: int = 500, published=None, consumed=None) -> None:
    rows = [
        OutboxMessage(
            event_id=f"{status}-{number}",
            biz_type=EVENT_TYPE,
            topic="t",
            message_key=f"key{number % keys}",
            payload="{}",
            status=status,
            published_at=published,
            consumed_at=consumed,
            created_at=OLD,
            updated_at=OLD,
        )
        for number in range(count)
    ]
    OutboxMessage.objects.bulk_create(rows, batch_size=2000)


@pytest.fixture
def seeded():
    """Make a table as it is in the middle of a day: many finished rows, some on their way, some waiting."""
    make_rows(16_000, Status.CONSUMED, published=OLD, consumed=OLD)
    make_rows(50, Status.DEAD, published=OLD)
    make_rows(1500, Status.PUBLISHED, published=OLD)
    make_rows(2500, Status.PENDING)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE agent_outbox_messages")
        cursor.fetchall()


def plans(queries: CaptureQueriesContext, pattern: str) -> list[dict]:
    """Return MariaDB's plan of each captured statement that matches; at least one does."""
    found = [query["sql"] for query in queries if re.search(pattern, query["sql"], re.DOTALL)]
    assert found, [query["sql"][:200] for query in queries]
    answers = []
    for sql in found:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN " + sql.replace("%", "%%"))
            names = [column[0] for column in cursor.description]
            answers += [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return answers


def check_plan(plan: dict, *, index: str, rows: int) -> None:
    assert plan["key"] == index, plan
    assert int(plan["rows"]) <= rows, plan
    assert "filesort" not in (plan["Extra"] or ""), plan
    assert "temporary" not in (plan["Extra"] or ""), plan


@pytest.mark.usefixtures("seeded")
def test_claim_settle_and_release_read_by_index_without_a_sort():
    """The claim's look for earlier rows of its keys too."""
    with CaptureQueriesContext(connection) as queries:
        taken = claim(limit=200)
        ids = [row.id for row in taken.rows]
        relay.settle_published(ids=ids[:100], token=taken.token, now=NOW)
        relay._release(dict.fromkeys(ids[100:], "away"), taken.token, NOW)

    assert len(ids) == 200
    (candidates,) = plans(queries, r"^SELECT.*FOR UPDATE SKIP LOCKED")
    check_plan(candidates, index="idx_outbox_status_id", rows=20_000)
    (barrier,) = plans(queries, r"^SELECT.*MIN\(")
    assert (barrier["key"], int(barrier["rows"]) <= 4000) == ("idx_outbox_key_status", True), barrier
    assert "filesort" not in barrier["Extra"], barrier
    updates = plans(queries, r"^UPDATE")
    assert len(updates) == 3
    for update in updates:
        check_plan(update, index="PRIMARY", rows=200)


def rows_read() -> int:
    """Return how many index entries and rows the server has touched for this connection so far."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for _, value in cursor.fetchall())


@pytest.mark.usefixtures("seeded")
def test_claim_and_prune_read_little_more_than_their_batch():
    start = rows_read()
    assert len(claim(limit=200).rows) == 200
    after_claim = rows_read()
    assert relay.prune_consumed(older_than=OLD - timedelta(days=1), limit=500) == 0

    assert after_claim - start < 4000
    assert rows_read() - after_claim < 2000


@pytest.mark.usefixtures("seeded", "handler")
def test_dispatch_reads_by_primary_key_and_looks_for_predecessors_in_their_index():
    values = [wire(append(f"key7777{number % 10}")) for number in range(50)]
    with CaptureQueriesContext(connection) as queries:
        outcomes = dispatch.dispatch_messages(values=values, clock=lambda: NOW)

    assert outcomes == [dispatch.Outcome.CONSUMED] * 50
    (lock,) = plans(queries, r"^SELECT.*FOR UPDATE")
    check_plan(lock, index="PRIMARY", rows=50)
    (predecessor,) = plans(queries, r"^SELECT.*MIN\(")
    check_plan(predecessor, index="idx_outbox_key_status", rows=200)
    (update,) = plans(queries, r"^UPDATE")
    check_plan(update, index="PRIMARY", rows=50)


@pytest.mark.usefixtures("seeded")
def test_rescan_reads_by_index_without_a_sort():
    with CaptureQueriesContext(connection) as queries:
        assert relay.rescan_published(older_than=NOW, now=NOW, limit=300) == 300

    search, lock = plans(queries, r"^SELECT")
    check_plan(search, index="idx_outbox_status_id", rows=20_000)
    check_plan(lock, index="PRIMARY", rows=300)
    (update,) = plans(queries, r"^UPDATE")
    check_plan(update, index="PRIMARY", rows=300)


def test_moments_keep_their_microseconds():
    moment = NOW.replace(microsecond=123_457)
    pk = append(now=moment)
    change(pk, next_retry_at=moment, lease_until=moment, claim_token="t", published_at=moment, consumed_at=moment)

    row = row_of(pk)
    assert {row.created_at, row.next_retry_at, row.lease_until, row.published_at, row.consumed_at} == {moment}
    assert claim(now=moment - timedelta(microseconds=1)).rows == []
    assert [taken.id for taken in claim(now=moment).rows] == [pk]


def test_database_now_is_utc_and_moves_on():
    first, second = database_now(), database_now()

    assert first.utcoffset() == timedelta(0)
    assert timedelta(0) <= second - first < timedelta(seconds=5)


def test_event_ids_and_keys_are_compared_byte_by_byte():
    head, other, blank = append("a", event_id="e"), append("A", event_id="E"), append("a ", event_id="é")
    change(head, next_retry_at=NOW + timedelta(seconds=60))

    assert [row.id for row in claim().rows] == [other, blank]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND table_name = 'agent_outbox_messages' AND collation_name IS NOT NULL"
        )
        assert {collation for _, collation in cursor.fetchall()} == {"utf8mb4_bin"}


def test_repeat_on_conflict_outlives_a_real_deadlock():
    first, second = append("a"), append("b")
    meeting = threading.Barrier(2, timeout=10)
    tries = []

    def touch(one: int, then: int):
        is_first_try = True

        def step():
            nonlocal is_first_try
            tries.append(one)
            with transaction.atomic():
                change(one, last_error=str(one))
                if is_first_try:
                    is_first_try = False
                    meeting.wait()
                change(then, last_error=str(one))
            return "done"

        return lambda: repeat_on_conflict(step)

    answers = run_at_once(touch(first, second), touch(second, first))

    assert answers == ["done", "done"]
    assert len(tries) == 3


def test_repeat_on_conflict_raises_a_deadlock_inside_a_callers_transaction():
    def lose():
        raise OperationalError(1213, "Deadlock found")

    with pytest.raises(OperationalError), transaction.atomic():
        repeat_on_conflict(lose)
