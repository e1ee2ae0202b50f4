"""A deadline that comes near is told of once, while the task is open."""

import json
from datetime import timedelta

import pytest
from django.db import connection

from outbox.models import OutboxMessage
from smartflow.events import TaskItemDueSoon
from tasks import jobs, operations, queries
from tasks.contracts import TaskChange
from tasks.models import Task
from tasks.operations import due_soon
from tests.task_rows import NOW, add_deleted_task, add_task

pytestmark = pytest.mark.django_db
DAY = timedelta(hours=24)


def tell(now=NOW):
    return operations.tell_due_soon(within=DAY, now=now)


def told():
    rows = OutboxMessage.objects.filter(biz_type=TaskItemDueSoon.event_type).order_by("id")
    return [json.loads(row.payload)["payload"]["task_id"] for row in rows]


def change(user, task_id, now=NOW, **values):
    operations.update_task(user_id=user.pk, task_id=task_id, change=TaskChange(**values), now=now)


def test_tell_due_soon_tells_of_each_near_deadline_once(alice, bob):
    later = add_task(alice, deadline_at=NOW + timedelta(hours=3))
    sooner = add_task(alice, deadline_at=NOW + timedelta(hours=1))
    last = add_task(bob, deadline_at=NOW + DAY)

    assert [tell(), tell(), tell(NOW + timedelta(hours=2))] == [3, 0, 0]

    assert told() == [sooner, later, last]
    assert set(Task.objects.values_list("due_soon_told_at", flat=True)) == {NOW}


def test_tell_due_soon_says_what_the_task_is_like(alice):
    task_id = add_task(alice, "Essay", deadline_at=NOW + DAY)
    tell()

    row = OutboxMessage.objects.get(biz_type=TaskItemDueSoon.event_type)
    event = TaskItemDueSoon.from_payload(json.loads(row.payload)["payload"])
    assert row.message_key == f"user:{alice.pk}"
    assert (event.user_id, event.task_id, event.title) == (alice.pk, task_id, "Essay")
    assert (event.deadline_at, event.changed) == ((NOW + DAY).isoformat(), [])
    assert event.occurred_at == NOW.isoformat()


def test_tell_due_soon_leaves_out_far_passed_completed_and_deleted_tasks(alice):
    add_task(alice)
    add_task(alice, deadline_at=NOW + DAY + timedelta(microseconds=1))
    add_task(alice, deadline_at=NOW)
    done = add_task(alice, deadline_at=NOW + timedelta(hours=1))
    operations.complete_task(user_id=alice.pk, task_id=done, now=NOW)
    add_deleted_task(alice, deadline_at=NOW + timedelta(hours=1))

    assert (tell(), told()) == (0, [])


def test_tell_due_soon_tells_again_of_another_deadline_only(alice):
    task_id = add_task(alice, deadline_at=NOW + timedelta(hours=2))
    tell()

    change(alice, task_id, title="New title", deadline_at=NOW + timedelta(hours=2))
    assert tell() == 0
    change(alice, task_id, deadline_at=NOW + timedelta(hours=5))
    assert [tell(), tell()] == [1, 0]
    change(alice, task_id, deadline_at=None)
    assert (tell(), told()) == (0, [task_id, task_id])


def test_tell_due_soon_tells_of_no_deadline_twice_when_a_task_comes_back(alice):
    task_id = add_task(alice, deadline_at=NOW + timedelta(hours=2))
    tell()
    operations.complete_task(user_id=alice.pk, task_id=task_id, now=NOW)
    operations.undo_complete_task(user_id=alice.pk, task_id=task_id, now=NOW)
    operations.delete_task(user_id=alice.pk, task_id=task_id, now=NOW)
    operations.restore_task(user_id=alice.pk, task_id=task_id, now=NOW)

    assert (tell(), told()) == (0, [task_id])


def test_tell_due_soon_takes_the_nearest_first_and_the_rest_in_the_next_pass(alice, bob, monkeypatch):
    monkeypatch.setattr(due_soon, "TOLD_AT_ONCE", 3)
    hours = {alice: (1, 4, 5), bob: (2, 3)}
    ids = {h: add_task(user, deadline_at=NOW + timedelta(hours=h)) for user, own in hours.items() for h in own}

    assert [tell(), tell(), tell()] == [3, 2, 0]
    assert told() == [ids[hour] for hour in (1, 2, 3, 4, 5)]


def test_tell_due_soon_leaves_the_claim_and_the_event_together(alice, monkeypatch):
    add_task(alice, deadline_at=NOW + timedelta(hours=1))
    monkeypatch.setattr(due_soon, "append_facts", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tell()
    monkeypatch.undo()

    assert Task.objects.get().due_soon_told_at is None
    assert [tell(), tell()] == [1, 0]


def test_job_tells_of_what_is_near_by_the_setting(alice, settings, monkeypatch):
    monkeypatch.setattr(jobs, "utc_now", lambda: NOW)
    add_task(alice, deadline_at=NOW + timedelta(hours=30))
    jobs.tell_due_soon()
    assert told() == []

    settings.TASK_DUE_SOON = timedelta(hours=31)
    jobs.tell_due_soon()
    assert len(told()) == 1


def test_list_due_soon_is_one_query(alice, django_assert_num_queries):
    add_task(alice, deadline_at=NOW + timedelta(hours=1))
    with django_assert_num_queries(1, connection=connection):
        assert len(queries.list_due_soon(now=NOW, until=NOW + DAY, limit=10)) == 1
