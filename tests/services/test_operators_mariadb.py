"""What the operators' verbs ask of MariaDB: steps that read no more than a step, workers that do nothing twice."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox import dead_letters
from outbox.database_clock import database_now
from outbox.dead_letters import discard_dead_letters, requeue_dead_letters
from outbox.models import OperatorAction, OutboxMessage, Status
from outbox.operator_actions import run_actions
from outbox.queries import depth_and_lag, overview
from outbox.selection import Selection, look_at_dead_letters
from outbox.upkeep import prune_step
from outbox.walk import list_open_dead_types
from tests.admin_rows import operator_client
from tests.outbox_rows import EVENT_TYPE, new_row
from tests.racing import run_at_once

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]
ROWS = 3_000
STEP_READ = 100


@pytest.fixture(autouse=True)
def only_mariadb():
    if connection.vendor != "mysql":
        pytest.skip("DATABASE_URL is not MariaDB's")


@pytest.fixture
def seeded():
    """Make as many consumed rows as dead ones, and return the ids of the dead."""
    old = database_now() - timedelta(days=30)
    OutboxMessage.objects.bulk_create(
        (
            new_row(
                event_id=f"e{number}",
                biz_type=EVENT_TYPE,
                topic="t",
                message_key=f"k{number // 10}",
                payload="x" * 200,
                last_error="RareError: x" if number % 500 == 0 else "TimeoutError: x",
                status=Status.DEAD if number >= ROWS // 2 else Status.CONSUMED,
                published_at=old,
                consumed_at=None if number >= ROWS // 2 else old,
                created_at=old,
                updated_at=old,
            )
            for number in range(ROWS)
        ),
        batch_size=2000,
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE agent_outbox_messages")
        cursor.fetchall()
    return list(OutboxMessage.objects.filter(status=Status.DEAD).order_by("id").values_list("id", flat=True))


def rows_read() -> int:
    """Return how many index entries and rows the server has touched for this connection so far."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for _, value in cursor.fetchall())


def cost_of(call) -> tuple[int, list[str]]:
    """Return what a call reads, and its plans' remarks about big reads."""
    start = rows_read()
    with CaptureQueriesContext(connection) as queries:
        call()
    read = rows_read() - start
    remarks = []
    for sql in [
        query["sql"] for query in queries if query["sql"].startswith("SELECT") and "Handler" not in query["sql"]
    ]:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN " + sql.replace("%", "%%"))
            names = [column[0] for column in cursor.description]
            lines = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        remarks += [line["Extra"] or "" for line in lines if line["table"] == "agent_outbox_messages"]
    assert remarks
    return read, remarks


def test_a_step_of_the_walk_reads_a_step_wherever_it_begins(seeded):
    """An index that is entered at the status's first row would make a walk cost the square of its length."""
    middle = seeded[len(seeded) // 2]
    for selection in (Selection(), Selection(error="Rare"), Selection(event_type=EVENT_TYPE, up_to_id=seeded[-10])):
        for place in ({"after_id": middle}, {"before_id": middle}):
            read, remarks = cost_of(
                lambda s=selection, p=place: look_at_dead_letters(selection=s, limit=STEP_READ, **p)
            )
            # the end of the step, from the index; then its rows, and what lies between them
            assert read <= 4 * STEP_READ, (selection, place, read)
            assert not [remark for remark in remarks if "filesort" in remark or "temporary" in remark]
    by_key, _ = cost_of(lambda: look_at_dead_letters(selection=Selection(key="k7"), limit=STEP_READ))
    assert by_key <= 40


def test_open_dead_letters_are_found_at_once_however_many_discarded_rows_lie_around(seeded):
    now = database_now()
    still_open = [seeded[700], seeded[900]]
    OutboxMessage.objects.filter(id=still_open[1]).update(biz_type="z.last.type")
    for start in range(0, len(seeded), 500):
        ids = [pk for pk in seeded[start : start + 500] if pk not in still_open]
        discard_dead_letters(ids=ids, by="alice", reason="old", now=now)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE agent_outbox_messages")
        cursor.fetchall()

    looks = []
    read, remarks = cost_of(lambda: looks.append(overview(now=now)))
    assert read <= 150, read
    assert (str(looks[0].depth.dead), sum(group.count for group in looks[0].dead)) == ("2", 2)
    read, remarks = cost_of(lambda: looks.append(look_at_dead_letters(selection=Selection())))
    assert (read, looks[1].ids) == (pytest.approx(15, abs=15), still_open)
    assert not [remark for remark in remarks if "filesort" in remark or "temporary" in remark]


def test_the_age_of_the_oldest_ready_row_is_read_a_shard_at_a_time(seeded):
    for start in range(0, len(seeded), 500):
        requeue_dead_letters(ids=seeded[start : start + 500], by="alice", reason="mended", now=database_now())
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE agent_outbox_messages")
        cursor.fetchall()
    looks = []
    read, _ = cost_of(lambda: looks.append(depth_and_lag(now=database_now(), cap=10)))
    # of each shard the first entry, and the one behind it; these rows; the counts' caps
    assert read <= 64 * 5 + 12 * 10, read
    assert looks[0].oldest_ready_seconds < 60
    assert looks[0].oldest_pending_seconds > 86_400


def test_event_types_with_open_dead_letters_are_read_an_entry_each(seeded):
    for number, pk in enumerate(seeded[:3]):
        OutboxMessage.objects.filter(id=pk).update(biz_type=f"zz.{number}")
    read, _ = cost_of(list_open_dead_types)
    assert read <= 20, read
    assert list_open_dead_types() == [EVENT_TYPE, "zz.0", "zz.1", "zz.2"]


def test_a_batch_of_prune_reads_a_batch_wherever_it_begins(seeded):
    middle = seeded[len(seeded) // 2]
    long_ago = database_now() - timedelta(days=365)
    read, remarks = cost_of(
        lambda: prune_step(status=Status.CONSUMED, older_than=long_ago, after_id=middle, limit=STEP_READ)
    )
    assert read <= 2 * STEP_READ, read
    assert not [remark for remark in remarks if "filesort" in remark]


def test_deep_pages_of_the_dead_letters_read_a_page(seeded):
    client = operator_client("outbox.view_outboxmessage")
    deep = f"/admin/outbox/deadletter/?after={seeded[1200]}"
    client.get(deep)  # content types are looked up once a process
    read, _ = cost_of(lambda: client.get(deep))
    assert read <= 400, read


def test_two_workers_and_a_lost_lease_move_every_row_once(seeded, monkeypatch):
    monkeypatch.setattr("outbox.operator_actions.STEP", 50)
    action = dead_letters.requeue(selection=Selection(), by="alice", reason="mended", now=database_now())
    assert action.state == "waiting"

    def work():
        # the other one's lease is taken for over at every batch: only the row's lock is left between the two
        later = database_now() + timedelta(hours=1)
        while OperatorAction.objects.filter(pk=action.pk, finished_at=None).exists():
            OperatorAction.objects.filter(pk=action.pk).update(lease_until=None)
            run_actions(clock=lambda: later, seconds=0.2)

    assert run_at_once(work, work) == [None, None]

    action.refresh_from_db()
    assert (action.state, action.expected_count, action.done_count) == ("done", len(seeded), len(seeded))
    assert OutboxMessage.objects.filter(status=Status.PENDING).count() == len(seeded)
