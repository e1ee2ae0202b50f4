"""What outbox/upkeep.py deletes: finished rows past retention, in small batches, and never an open dead letter."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox import jobs, upkeep
from outbox.models import Attempt, LocalMessage, MinuteCount, OutboxMessage, Status, Worker
from outbox.upkeep import prune, prune_consumed, prune_records, prune_step
from smartflow.timetable import TIMETABLE
from tests.outbox_rows import EVENT_TYPE, NOW, new_row

pytestmark = pytest.mark.django_db
OLD, CUT = NOW - timedelta(days=8), NOW - timedelta(days=7)


def make(status: str = Status.CONSUMED, *, finished=OLD, created=OLD, **fields) -> int:
    times = {
        "published_at": finished if status in (Status.PUBLISHED, Status.CONSUMED) else None,
        "consumed_at": finished if status == Status.CONSUMED else None,
    }
    number = OutboxMessage.objects.count()
    row = new_row(
        event_id=f"e{number}-{status}",
        message_key="k",
        biz_type=EVENT_TYPE,
        topic="t",
        payload="{}",
        status=status,
        created_at=created,
        updated_at=finished,
        **{**times, **fields},
    )
    row.save()
    return row.pk


def left() -> list[int]:
    return list(OutboxMessage.objects.order_by("id").values_list("id", flat=True))


def test_prune_deletes_consumed_rows_past_retention_and_no_others():
    make()
    kept = [
        make(finished=NOW),
        make(Status.DEAD),
        make(Status.DEAD, discarded_at=OLD, discard_reason="x"),
        make(Status.PUBLISHED),
        make(Status.PENDING),
    ]
    assert prune(older_than=CUT, seconds=30, wait=lambda _: None) == 1
    assert left() == kept


def test_prune_passes_over_old_rows_that_were_handled_lately():
    """A requeued row keeps its low id; a thousand of them must not hide what is behind them."""
    lately = [make(finished=NOW) for _ in range(5)]
    make()
    assert prune_consumed(older_than=CUT, limit=2) == 0
    step = prune_step(status=Status.CONSUMED, older_than=CUT, limit=5)
    assert (step.deleted, step.last_id, step.is_end) == (0, lately[-1], False)
    assert prune(older_than=CUT, seconds=30, wait=lambda _: None) == 1
    assert left() == lately


def test_prune_ends_where_rows_were_written_after_the_moment(monkeypatch):
    """Otherwise every run would read the whole retention's rows."""
    monkeypatch.setattr(upkeep, "PRUNE_BATCH", 2)
    make()
    for _ in range(6):
        make(created=NOW, finished=NOW)
    with CaptureQueriesContext(connection) as queries:
        assert prune(older_than=CUT, seconds=30, wait=lambda _: None) == 1
    assert len([query for query in queries if query["sql"].startswith("SELECT")]) == 1


def test_prune_deletes_the_attempts_of_its_rows_only():
    gone, kept = make(), make(finished=NOW)
    for pk in (gone, kept):
        Attempt.objects.create(message_id=pk, step="handle", number=1, at=OLD, seconds=0, by="c", error="x")
        LocalMessage.objects.create(outbox_id=pk, topic="t", message_key="k", value="{}")
    prune(older_than=CUT, seconds=30, wait=lambda _: None)
    assert list(Attempt.objects.values_list("message_id", flat=True)) == [kept]
    assert LocalMessage.objects.count() == 2


def test_prune_rests_after_each_batch_and_backs_off_when_the_database_is_slow(monkeypatch):
    for _ in range(12):
        make()
    moments = iter(range(1000))
    took = [1.0]  # what the clock moves between two looks at it
    monkeypatch.setattr(upkeep.time, "monotonic", lambda: next(moments) * took[0])
    monkeypatch.setattr(upkeep, "PRUNE_BATCH", 8)
    monkeypatch.setattr(upkeep, "SMALLEST_PRUNE_BATCH", 2)
    rests: list[float] = []
    sums: list[int] = []
    assert prune(older_than=CUT, seconds=900, wait=rests.append, tell=sums.append) == 12
    assert rests == [3.0, 3.0]
    assert sums == [8, 12, 12]


def test_prune_stops_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(upkeep, "PRUNE_BATCH", 2)
    ids = [make() for _ in range(4)]
    assert prune(older_than=CUT, seconds=0, wait=lambda _: None) == 2
    assert left() == ids[2:]


def test_prune_ends_when_the_process_is_stopping(monkeypatch):
    monkeypatch.setattr(upkeep, "PRUNE_BATCH", 2)
    ids = [make() for _ in range(4)]
    assert prune(older_than=CUT, seconds=30, wait=lambda _: True) == 2
    assert left() == ids[2:]


def test_prune_deletes_discarded_rows_only_when_it_is_asked_to():
    make(Status.DEAD, discarded_at=OLD, discard_reason="x")
    kept = [make(Status.DEAD), make(Status.DEAD, discarded_at=NOW, discard_reason="x"), make()]
    assert prune(older_than=CUT, seconds=30, status=Status.DEAD, wait=lambda _: None) == 1
    assert left() == kept


@pytest.mark.parametrize("status", [Status.PENDING, Status.PUBLISHED])
def test_prune_step_refuses_rows_that_are_not_finished(status):
    with pytest.raises(ValueError, match="not finished"):
        prune_step(status=status, older_than=CUT)


def test_prune_records_deletes_old_minutes_and_workers_that_are_long_gone():
    for moment in (OLD, NOW):
        MinuteCount.objects.create(minute=moment)
    for name, heard in (("gone", NOW - timedelta(hours=2)), ("quiet", NOW - timedelta(minutes=2))):
        Worker.objects.create(name=name, kind="consumer", started_at=OLD, heartbeat_at=heard, lease_until=heard)
    assert prune_records(now=NOW) == 2
    assert [worker.name for worker in Worker.objects.all()] == ["quiet"]
    assert [count.minute for count in MinuteCount.objects.all()] == [NOW]


def test_prune_job_ends_before_it_is_started_again():
    assert TIMETABLE["prune"]["schedule"] > jobs.PRUNE_SECONDS
