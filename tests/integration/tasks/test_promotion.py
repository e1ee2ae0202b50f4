"""What became urgent is stored once, by the event that readers leave or by the job."""

import json
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import DatabaseError

from outbox.models import OutboxMessage, Status
from outbox.testing import drain
from smartflow.events import TaskUrgencyPromoteRequested
from tasks import jobs, operations, queries
from tasks.contracts import Page, TaskFilter
from tasks.handlers import promote_urgent_tasks
from tasks.models import Task, TaskRevision
from tasks.operations import promotion
from tests.task_rows import AHEAD, NOW, PASSED, add_task

pytestmark = pytest.mark.django_db
REQUEST = "task.urgency.promote.requested"


@pytest.fixture(autouse=True)
def empty_cache():
    cache.clear()


def requests():
    rows = OutboxMessage.objects.filter(biz_type=REQUEST).order_by("id").values_list("payload", flat=True)
    return [json.loads(payload)["payload"]["task_ids"] for payload in rows]


def due_task(user, **values):
    return add_task(user, **{"priority": 2, "urgency_threshold_at": PASSED} | values)


def stored(*task_ids):
    priorities = dict(Task.objects.values_list("pk", "priority"))
    return [priorities[task_id] for task_id in task_ids]


def test_readers_leave_one_request_for_each_task_however_often_they_read(alice):
    one, two = due_task(alice), due_task(alice, priority=4)
    add_task(alice, priority=2, urgency_threshold_at=AHEAD)

    for _ in range(5):
        views = operations.show_tasks(user_id=alice.pk, now=NOW)
        assert [view.priority for view in views] == [1, 3, 2]
    three = due_task(alice)
    operations.show_page(user_id=alice.pk, wanted=TaskFilter(), page=Page(limit=10), now=NOW)

    assert requests() == [[one, two], [three]]
    assert stored(one, two) == [2, 4]


def test_requests_share_a_key_neither_with_each_other_nor_with_facts(alice):
    """Nothing makes them commit in the order of their numbers: under one key that would be an order violation."""
    due_task(alice)
    operations.show_tasks(user_id=alice.pk, now=NOW)
    due_task(alice)
    operations.show_tasks(user_id=alice.pk, now=NOW)
    drain()

    keys = list(OutboxMessage.objects.filter(biz_type=REQUEST).values_list("message_key", flat=True))
    facts = set(OutboxMessage.objects.exclude(biz_type=REQUEST).values_list("message_key", flat=True))
    assert facts == {f"user:{alice.pk}"}
    assert len({*keys, *facts}) == 3


def test_request_is_handled_once_and_stores_what_readers_saw(alice):
    one, two = due_task(alice), due_task(alice, priority=4)
    operations.show_tasks(user_id=alice.pk, now=NOW)

    drain()

    assert stored(one, two) == [1, 3]
    told = OutboxMessage.objects.filter(biz_type="task.item.changed").order_by("id")
    assert [json.loads(row.payload)["payload"]["changed"] for row in told] == [["priority"], ["priority"]]
    assert not OutboxMessage.objects.exclude(status=Status.CONSUMED).exists()
    assert [view.row.priority for view in operations.show_tasks(user_id=alice.pk, now=NOW)] == [1, 3]
    assert len(requests()) == 1


def test_handler_changes_nothing_the_second_time(alice):
    task_id = due_task(alice)
    event = TaskUrgencyPromoteRequested(user_id=alice.pk, task_ids=[task_id], triggered_at=NOW.isoformat())
    promote_urgent_tasks(event, event_id="e")
    revision, told = TaskRevision.objects.get().revision, OutboxMessage.objects.count()

    promote_urgent_tasks(event, event_id="e")

    assert stored(task_id) == [1]
    assert (TaskRevision.objects.get().revision, OutboxMessage.objects.count()) == (revision, told)


@pytest.mark.parametrize("change", ["complete", "delete", "clear", "move"])
def test_promote_urgent_tasks_leaves_what_changed_meanwhile(alice, change):
    task_id = due_task(alice)
    values = {"clear": {"urgency_threshold_at": None}, "move": {"urgency_threshold_at": AHEAD}}.get(change)
    if values:
        Task.objects.update(**values)
    elif change == "complete":
        operations.complete_task(user_id=alice.pk, task_id=task_id, now=NOW)
    else:
        operations.delete_task(user_id=alice.pk, task_id=task_id, now=NOW)

    assert operations.promote_urgent_tasks(user_id=alice.pk, task_ids=[task_id], now=NOW) == 0
    assert stored(task_id) == [2]


def test_promote_urgent_tasks_touches_nobody_elses(alice, bob):
    hers = due_task(alice)

    assert operations.promote_urgent_tasks(user_id=bob.pk, task_ids=[hers], now=NOW) == 0
    assert stored(hers) == [2]


def test_request_promotion_gives_its_claims_back_when_the_event_cannot_be_appended(alice, monkeypatch):
    task_id = due_task(alice)

    def fail(**_values):
        raise DatabaseError

    with monkeypatch.context() as patched:
        patched.setattr(promotion, "append_event", fail)
        assert [view.priority for view in operations.show_tasks(user_id=alice.pk, now=NOW)] == [1]
    assert requests() == []

    operations.show_tasks(user_id=alice.pk, now=NOW)
    assert requests() == [[task_id]]


def test_request_promotion_asks_for_nothing_without_a_cache_and_the_job_does_it(alice, bob, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    hers, his = due_task(alice), due_task(bob, priority=4)
    add_task(bob, priority=2, urgency_threshold_at=PASSED + timedelta(days=3650 * 5))

    jobs.promote_due_tasks()

    assert stored(hers, his) == [1, 3]
    assert queries.list_users_with_due_tasks(now=NOW, limit=10) == []


def test_request_promotion_is_bounded(alice, monkeypatch):
    monkeypatch.setattr(promotion, "MOST_CLAIMED", 3)
    for number in range(5):
        due_task(alice, title=f"T{number}")

    operations.show_tasks(user_id=alice.pk, now=NOW)

    assert [len(task_ids) for task_ids in requests()] == [3]


def test_promote_due_tasks_goes_on_where_it_was_bounded(alice, monkeypatch):
    monkeypatch.setattr(promotion, "MOST_PROMOTED", 2)
    for number in range(5):
        due_task(alice, title=f"T{number}")

    assert [operations.promote_due_tasks(now=NOW) for _ in range(4)] == [2, 2, 1, 0]


def test_prune_job_deletes_what_nobody_can_restore(alice):
    task_id = add_task(alice)
    operations.delete_task(user_id=alice.pk, task_id=task_id, now=NOW - timedelta(days=400))

    jobs.prune_deleted_tasks()

    assert not Task.objects.exists()
