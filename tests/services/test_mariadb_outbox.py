"""What the outbox asks of MariaDB or MySQL: plans without a sort, moments in microseconds, keys compared by bytes."""

import re
import threading
from collections import defaultdict
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from time import monotonic

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from outbox import dispatch, relay, upkeep
from outbox.claim import Share
from outbox.database_clock import database_now
from outbox.database_errors import repeat_on_conflict
from outbox.dead_letters import discard_dead_letters
from outbox.holds import release_held_rows, wake_due_rows
from outbox.models import KeyHold, OutboxMessage, Status
from outbox.rescan import Rescan
from outbox.settle import Astray, find_astray, give_back, settle_published
from outbox.shards import shards_of_slot
from tests.outbox_rows import (
    EVENT_TYPE,
    NOW,
    RecordingTransport,
    SharedLog,
    append,
    change,
    claim,
    new_row,
    row_of,
    wire,
)
from tests.racing import run_at_once

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]
OLD = NOW - timedelta(days=30)


@pytest.fixture(autouse=True)
def only_mariadb():
    if connection.vendor != "mysql":
        pytest.skip("DATABASE_URL is not MariaDB's")


def make_rows(count: int, status: str, *, key: str = "key", published=None, consumed=None, places=()) -> None:
    rows = [
        new_row(
            event_id=f"{status if key == 'key' else key}-{number}",
            biz_type=EVENT_TYPE,
            topic="t",
            message_key=f"{key}{number % 500}",
            payload="{}",
            status=status,
            published_at=published,
            published_partition=places[number][0] if places else None,
            published_offset=places[number][1] if places else None,
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
    make_rows(50, Status.DEAD, key="dead", published=OLD)
    make_rows(1500, Status.PUBLISHED, published=OLD)
    make_rows(2500, Status.PENDING)
    analyze()


def analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE agent_outbox_messages")
        cursor.fetchall()


def plans(queries: CaptureQueriesContext, pattern: str) -> list[dict]:
    """Return the server's plan of each captured statement that matches; at least one does."""
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


def rows_read() -> int:
    """Return how many index entries and rows the server has touched for this connection so far."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for _, value in cursor.fetchall())


class RowsRead:
    """Counts what the server touches for each statement, the question itself taken off."""

    def __init__(self) -> None:
        first, second = rows_read(), rows_read()
        self._question = second - first
        self.by_statement: list[tuple[str, int]] = []

    def __call__(self, execute, sql, params, many, context):
        if sql.startswith("SHOW"):
            return execute(sql, params, many, context)
        before = rows_read()
        answer = execute(sql, params, many, context)
        self.by_statement.append((sql, rows_read() - before - self._question))
        return answer


@pytest.mark.usefixtures("seeded")
def test_claim_and_settle_read_by_index_without_a_sort():
    """The claim's look for earlier rows of its keys too."""
    with CaptureQueriesContext(connection) as queries:
        taken = claim(limit=200)
        ids = [row.id for row in taken.rows]
        settle_published(ids=ids[:100], token=taken.token, now=NOW, positions={ids[0]: (3, 10**12)})
        give_back(ids=ids[100:], token=taken.token, now=NOW, reason="away")

    assert len(ids) == 200
    (candidates,) = plans(queries, r"^SELECT .*ready_shard")
    check_plan(candidates, index="idx_outbox_ready", rows=5000)
    searches = [plan for plan in plans(queries, r"MIN\(id\)") if plan["table"] == "agent_outbox_messages"]
    assert len(searches) == 2
    for search in searches:
        assert search["key"] == "idx_outbox_key_status", search
        assert "filesort" not in search["Extra"], search
    assert "Using index" in searches[0]["Extra"], searches[0]
    updates = plans(queries, r"^UPDATE")
    assert {plan["key"] for plan in updates if plan["table"] == "agent_outbox_messages"} == {"PRIMARY"}
    assert not [plan for plan in updates if "filesort" in (plan["Extra"] or "")]
    assert len([query for query in queries if query["sql"].startswith("UPDATE")]) == 3
    settled = row_of(ids[0])
    assert (settled.status, settled.published_partition, settled.published_offset) == ("published", 3, 10**12)


@pytest.mark.usefixtures("seeded")
def test_claim_settle_and_prune_read_at_most_twice_their_batch():
    counter = RowsRead()
    with connection.execute_wrapper(counter):
        taken = claim(limit=200)
        settle_published(ids=[row.id for row in taken.rows], token=taken.token, now=NOW)
        upkeep.prune_consumed(older_than=OLD - timedelta(days=1), limit=200)
        upkeep.prune_consumed(older_than=NOW, limit=200)
        wake_due_rows(now=NOW)
        release_held_rows(now=NOW)

    assert len(taken.rows) == 200
    # The settle joins its own list: as many rows again, which are in memory, each of them read twice as well. MySQL
    # notes the pairs before it writes, and reads that note too.
    settle = 805 if connection.mysql_is_mariadb else 1005
    most = {sql: settle if "JSON_TABLE" in sql else 400 for sql, _ in counter.by_statement}
    assert all(count <= most[sql] for sql, count in counter.by_statement), counter.by_statement


@pytest.mark.usefixtures("seeded")
def test_held_and_waiting_rows_are_found_by_index_without_a_sort():
    head, waiting = append("blocked"), append("waiting")
    follower = append("blocked")
    change(head, status=Status.DEAD)
    change(waiting, next_retry_at=NOW)
    claim(limit=3000)
    assert row_of(follower).ready_shard is None
    discard_dead_letters(ids=[head], by="ops", reason="old", now=NOW)
    with CaptureQueriesContext(connection) as queries:
        assert wake_due_rows(now=NOW) == 1
        assert release_held_rows(now=NOW) == 1

    (due,) = plans(queries, r"^SELECT .*next_retry_at` <= ")
    check_plan(due, index="idx_outbox_status_next", rows=10)
    locked = plans(queries, r"^SELECT .*FOR UPDATE SKIP LOCKED")
    assert {plan["key"] for plan in locked if plan["table"] == "agent_outbox_messages"} == {"PRIMARY"}
    (held,) = plans(queries, r"^SELECT .*message_key` IN .*ready_shard` IS NULL")
    assert held["key"] == "idx_outbox_key_status", held


@pytest.mark.usefixtures("seeded", "handler")
def test_dispatch_reads_by_primary_key_and_looks_for_predecessors_in_their_index():
    values = [wire(append(f"key7777{number % 10}")) for number in range(50)]
    with CaptureQueriesContext(connection) as queries:
        outcomes = dispatch.dispatch_messages(values=values, clock=lambda: NOW)

    assert outcomes == [dispatch.Outcome.CONSUMED] * 50
    (lock,) = plans(queries, r"^SELECT.*FOR UPDATE")
    check_plan(lock, index="PRIMARY", rows=50)
    predecessors = plans(queries, r"^SELECT.* AS newest")
    assert [plan["key"] for plan in predecessors] == ["PRIMARY", *["idx_outbox_key_status"] * 3]
    assert not [plan for plan in predecessors if re.search("filesort|temporary", plan["Extra"] or "")]
    (update,) = plans(queries, r"^UPDATE")
    check_plan(update, index="PRIMARY", rows=50)


@contextmanager
def in_a_handlers_hand(pk: int):
    """Keep a row locked, as a handler does that takes long."""
    is_locked, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            OutboxMessage.objects.select_for_update().get(pk=pk)
            is_locked.set()
            may_end.wait(20)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_locked.wait(5)
    yield
    may_end.set()
    thread.join()


def test_row_in_the_hand_of_a_long_handler_holds_up_neither_settle_nor_claim():
    ids = [append(f"key {number}") for number in range(5)]
    taken = claim(limit=10)
    with in_a_handlers_hand(ids[2]):
        began = monotonic()
        settled = settle_published(ids=ids, token=taken.token, now=NOW, by="relay")
        astray = find_astray(ids=ids, token=taken.token, by="relay", settled_at=NOW)
        late = append("late")
        again = claim(limit=10, now=NOW + timedelta(hours=1))
        seconds = monotonic() - began

    assert (settled, astray) == (4, Astray(fenced=0, ids=frozenset({ids[2]})))
    assert [row_of(pk).status for pk in ids] == ["published", "published", "pending", "published", "published"]
    assert [row.id for row in again.rows] == [late]
    assert seconds < 5


def make_published(count: int, *, key: str, offset: int) -> int:
    """Write rows that wait in six partitions, and in their middle one that the group has passed; return its id."""
    places = [(number % 6, offset + number) for number in range(count)]
    places[count // 2] = (count // 2 % 6, offset - 1)
    make_rows(count, Status.PUBLISHED, key=key, published=OLD, places=places)
    return OutboxMessage.objects.get(published_offset=offset - 1).pk


@pytest.mark.parametrize("is_analyzed", [True, False])
def test_rescan_finds_a_lost_row_by_as_many_reads_in_a_long_queue_as_in_a_short_one(is_analyzed):
    make_rows(1000, Status.CONSUMED, published=OLD, consumed=OLD)
    transport, touched = RecordingTransport(), []
    for key, count in (("short", 600), ("long", 6000)):
        transport.lost = {make_published(count, key=key, offset=100_000 - count)}
        if is_analyzed:
            analyze()
        counter = RowsRead()
        with connection.execute_wrapper(counter):
            assert Rescan(transport=transport, unknown_seconds=10**9, page=50).run(now=NOW, pages=1) == 1
        touched.append(sum(count for _, count in counter.by_statement))

    assert max(touched) < 150, touched  # of which a page is fifty


@pytest.mark.usefixtures("seeded")
def test_rescan_reads_by_index_without_a_sort():
    make_published(6000, key="queue", offset=1)
    analyze()
    transport = RecordingTransport()
    lost = OutboxMessage.objects.filter(published_offset__lte=1800, published_partition__in=(1, 2))
    transport.lost = set(lost.values_list("id", flat=True))
    with CaptureQueriesContext(connection) as queries:
        assert Rescan(transport=transport, unknown_seconds=10**9, page=500).run(now=NOW, pages=1) == 600

    edges = plans(queries, "^SELECT .*GROUP BY")
    assert {plan["key"] for plan in edges} == {None, "idx_outbox_place"}  # what has none is the derived table
    assert sum("Using index for group-by" in (plan["Extra"] or "") for plan in edges) == 2
    assert not [plan for plan in edges if "filesort" in (plan["Extra"] or "")]
    for search in plans(queries, r"^SELECT .*LIMIT"):
        check_plan(search, index="idx_outbox_place", rows=3000)
    for lock in plans(queries, r"^SELECT .*FOR UPDATE"):
        check_plan(lock, index="PRIMARY", rows=300)
    for update in plans(queries, r"^UPDATE"):
        check_plan(update, index="PRIMARY", rows=300)


def test_relays_on_disjoint_shards_and_a_sweep_meet_no_conflict_and_keep_the_order():
    """Four relays, two writers and a sweep at once: no lock error surfaces, each key's order holds."""
    written, broker = defaultdict(list), SharedLog()

    def write(number):
        for count in range(120):
            key = f"key{number}-{count % 12}"
            written[key].append(append(key, now=database_now()))

    def relay_slot(slot):
        first, last = shards_of_slot(slot, slots=4)
        worker = make_relay(broker, Share(first=first, last=last))
        for _ in range(60):
            worker()

    calls = [partial(write, number) for number in range(2)] + [partial(relay_slot, slot) for slot in range(4)]
    answers = run_at_once(*calls, lambda: [relay.sweep(database_now) for _ in range(40)])
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    make_relay(broker, Share())()

    published = defaultdict(list)
    for message in broker.published:
        published[message.key].append(message.outbox_id)
    assert published == written


def make_relay(transport, share):
    bounds = relay.Bounds(batch_size=500, lease_seconds=30, publish_seconds=5)
    return partial(relay.Relay(transport=transport, clock=database_now, bounds=bounds).run_batch, share)


def test_a_sweep_and_claims_at_once_never_leave_a_held_row_without_its_hold():
    heads = [append(f"key{number}") for number in range(6)]
    for pk in heads:
        change(pk, status=Status.DEAD)
    for _ in range(4):
        for number in range(6):
            append(f"key{number}")

    def operate():
        """Give heads up and bury them anew, so that keys are blocked and free in turn."""
        for count in range(30):
            discarded = NOW if count % 2 else None
            OutboxMessage.objects.filter(id__in=heads[count % 3 :: 3]).update(discarded_at=discarded)

    def hold():
        for _ in range(30):
            taken = claim(limit=50)
            give_back(ids=[row.id for row in taken.rows], token=taken.token, now=NOW)

    answers = run_at_once(operate, hold, hold, *[lambda: [release_held_rows(now=NOW) for _ in range(40)]] * 2)

    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    held = OutboxMessage.objects.filter(status=Status.PENDING, ready_shard__isnull=True, next_retry_at__isnull=True)
    assert set(held.values_list("message_key", flat=True)) <= set(KeyHold.objects.values_list("message_key", flat=True))
    OutboxMessage.objects.filter(id__in=heads).update(discarded_at=NOW)
    release_held_rows(now=NOW)
    assert len(claim(limit=50).rows) == 24


def test_moments_keep_their_microseconds():
    moment = NOW.replace(microsecond=123_457)
    pk = append(now=moment)
    change(pk, lease_until=moment, claim_token="t", published_at=moment, consumed_at=moment)

    row = row_of(pk)
    assert {row.created_at, row.lease_until, row.published_at, row.consumed_at} == {moment}
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
