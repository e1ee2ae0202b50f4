"""Adding, changing, completing, deleting and restoring a task, with what is told of it."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from outbox.models import OutboxMessage
from tasks import operations, queries
from tasks.contracts import NewTask, TaskChange
from tasks.models import Task, TaskRevision
from tests.task_rows import AHEAD, NOW, PASSED, add_task

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(hours=1)


def facts():
    """What was told so far, without the creations: (type, changed)."""
    rows = OutboxMessage.objects.order_by("id").values_list("biz_type", "payload")
    told = [(kind, json.loads(payload)["payload"]["changed"]) for kind, payload in rows]
    return [(kind, changed) for kind, changed in told if kind != "task.item.created"]


def update(user, task_id, now=LATER, **values):
    return operations.update_task(user_id=user.pk, task_id=task_id, change=TaskChange(**values), now=now)


def test_create_task_stores_what_was_given_and_tells_it_in_the_users_order(alice):
    view = operations.create_task(
        user_id=alice.pk,
        task=NewTask(title="  Essay ", priority=2, deadline_at=AHEAD, estimated_sections=9),
        now=NOW,
    )

    row = view.row
    assert (row.title, view.priority, row.priority, row.estimated_sections) == ("Essay", 2, 2, 4)
    assert (row.urgency_threshold_at, row.created_at) == (AHEAD - timedelta(hours=24), NOW)
    event = OutboxMessage.objects.get()
    payload = json.loads(event.payload)["payload"]
    assert (event.biz_type, event.message_key) == ("task.item.created", f"user:{alice.pk}")
    assert (payload["task_id"], payload["title"], payload["deadline_at"]) == (row.id, "Essay", AHEAD.isoformat())


def test_create_task_leaves_a_threshold_of_none_alone(alice):
    task = NewTask(title="x", priority=2, deadline_at=AHEAD, urgency_threshold_at=None)

    assert operations.create_task(user_id=alice.pk, task=task, now=NOW).row.urgency_threshold_at is None


def test_create_task_takes_the_priority_of_the_deadline_when_none_is_given(alice):
    for deadline, priority in ((NOW, 1), (AHEAD, 2), (None, 3)):
        task = NewTask(title="x", deadline_at=deadline)
        assert operations.create_task(user_id=alice.pk, task=task, now=NOW).row.priority == priority


@pytest.mark.parametrize("title", ["", "  ", "x" * 256])
def test_create_task_refuses_a_wrong_title(alice, title):
    with pytest.raises(operations.TaskTitleInvalid):
        add_task(alice, title)
    assert not Task.objects.exists()


@pytest.mark.parametrize("priority", [0, 5, -1])
def test_create_task_refuses_another_priority(alice, priority):
    with pytest.raises(operations.PriorityInvalid) as refused:
        add_task(alice, priority=priority)
    assert refused.value.code == "40018"
    assert "priority_group" in refused.value.fields


def test_create_task_leaves_nothing_when_its_transaction_rolls_back(alice):
    with transaction.atomic():
        add_task(alice)
        transaction.set_rollback(True)

    assert (Task.objects.count(), OutboxMessage.objects.count(), TaskRevision.objects.count()) == (0, 0, 0)


def test_update_task_changes_what_is_given_and_leaves_the_rest(alice):
    task_id = add_task(alice, deadline_at=AHEAD, estimated_sections=2)

    row = update(alice, task_id, title="Renamed", estimated_sections=0).row

    assert (row.title, row.estimated_sections, row.deadline_at, row.priority) == ("Renamed", 1, AHEAD, 3)
    assert facts() == [("task.item.changed", ["estimated_sections", "title"])]
    assert Task.objects.get().updated_at == LATER


def test_update_task_clears_what_is_none(alice):
    task_id = add_task(alice, priority=2, deadline_at=AHEAD)

    row = update(alice, task_id, deadline_at=None, urgency_threshold_at=None).row

    assert (row.deadline_at, row.urgency_threshold_at) == (None, None)
    assert facts() == [("task.item.changed", ["deadline_at", "urgency_threshold_at"])]


def test_update_task_tells_nothing_when_nothing_differs(alice):
    task_id = add_task(alice, "Same")

    update(alice, task_id, title="Same", deadline_at=None)

    assert facts() == []
    assert Task.objects.get().updated_at == NOW


def test_update_task_keeps_a_quadrant_that_was_chosen_by_hand(alice):
    task_id = add_task(alice, priority=2, urgency_threshold_at=PASSED)
    assert queries.get_task(user_id=alice.pk, task_id=task_id, now=NOW).priority == 1

    view = update(alice, task_id, priority=4)

    assert (view.priority, view.row.priority, view.row.urgency_threshold_at) == (4, 4, None)
    assert facts() == [("task.item.changed", ["priority", "urgency_threshold_at"])]


def test_update_task_takes_a_passed_threshold_that_is_given_with_the_quadrant(alice):
    view = update(alice, add_task(alice), priority=2, urgency_threshold_at=PASSED)

    assert (view.priority, view.row.priority) == (1, 2)


def test_update_task_keeps_a_threshold_ahead_when_only_the_quadrant_changes(alice):
    view = update(alice, add_task(alice, urgency_threshold_at=AHEAD), priority=2)

    assert view.row.urgency_threshold_at == AHEAD


def test_update_task_refuses_an_empty_change(alice):
    with pytest.raises(operations.NothingToChange) as refused:
        update(alice, add_task(alice))
    assert refused.value.code == "40063"


def test_complete_task_keeps_the_first_moment(alice):
    task_id = add_task(alice)

    first = operations.complete_task(user_id=alice.pk, task_id=task_id, now=NOW)
    second = operations.complete_task(user_id=alice.pk, task_id=task_id, now=LATER)

    assert (first.was_completed, second.was_completed) == (False, True)
    assert replace(first, was_completed=True) == second
    assert Task.objects.get().completed_at == NOW
    assert facts() == [("task.item.completed", ["completed_at", "is_completed"])]


def test_undo_complete_task_opens_it_again_and_only_once(alice):
    task_id = add_task(alice)
    operations.complete_task(user_id=alice.pk, task_id=task_id, now=NOW)

    operations.undo_complete_task(user_id=alice.pk, task_id=task_id, now=LATER)

    task = Task.objects.get()
    assert (task.is_completed, task.completed_at) == (False, None)
    with pytest.raises(operations.TaskNotCompleted) as refused:
        operations.undo_complete_task(user_id=alice.pk, task_id=task_id, now=LATER)
    assert refused.value.code == "40052"
    assert [kind for kind, _changed in facts()] == ["task.item.completed", "task.item.changed"]


def test_delete_task_hides_it_and_restore_task_brings_it_back_as_it_was(alice):
    task_id = add_task(alice, "Keep me", priority=2, deadline_at=AHEAD)
    before = queries.get_task(user_id=alice.pk, task_id=task_id, now=NOW)

    operations.delete_task(user_id=alice.pk, task_id=task_id, now=NOW)

    with pytest.raises(queries.NoTasks):
        queries.list_tasks(user_id=alice.pk, now=NOW)
    with pytest.raises(operations.TaskNotFound):
        update(alice, task_id, title="x")
    with pytest.raises(operations.TaskAlreadyDeleted) as told:
        operations.delete_task(user_id=alice.pk, task_id=task_id, now=LATER)
    assert told.value.code == "10003"
    restored = operations.restore_task(user_id=alice.pk, task_id=task_id, now=NOW + timedelta(days=29, hours=23))
    assert restored.row == before.row
    assert operations.restore_task(user_id=alice.pk, task_id=task_id, now=LATER).row == before.row
    assert facts() == [("task.item.deleted", ["deleted_at"]), ("task.item.changed", ["deleted_at"])]


def test_restore_task_refuses_after_thirty_days_and_prune_deletes_the_row(alice):
    task_id, recent, live = add_task(alice, "old"), add_task(alice, "recent"), add_task(alice, "live")
    operations.delete_task(user_id=alice.pk, task_id=task_id, now=NOW)
    operations.delete_task(user_id=alice.pk, task_id=recent, now=NOW + timedelta(days=1))
    end = NOW + timedelta(days=30)

    with pytest.raises(operations.TaskNotFound):
        operations.restore_task(user_id=alice.pk, task_id=task_id, now=end)
    assert operations.prune_deleted_tasks(now=end) == 1
    assert operations.prune_deleted_tasks(now=end) == 0
    assert set(Task.objects.values_list("pk", flat=True)) == {recent, live}


def test_nothing_of_alices_task_exists_for_bob(alice, bob):
    task_id = add_task(alice, "Secret")
    operations.complete_task(user_id=alice.pk, task_id=task_id, now=NOW)
    before = list(Task.objects.values())
    told = OutboxMessage.objects.count()

    for refused in (
        lambda: queries.get_task(user_id=bob.pk, task_id=task_id, now=NOW),
        lambda: update(bob, task_id, title="Bob was here"),
        lambda: operations.complete_task(user_id=bob.pk, task_id=task_id, now=NOW),
        lambda: operations.undo_complete_task(user_id=bob.pk, task_id=task_id, now=NOW),
        lambda: operations.restore_task(user_id=bob.pk, task_id=task_id, now=NOW),
    ):
        with pytest.raises(operations.TaskNotFound):
            refused()
    with pytest.raises(operations.TaskAlreadyDeleted):
        operations.delete_task(user_id=bob.pk, task_id=task_id, now=NOW)
    assert queries.list_completion(user_id=bob.pk, task_ids=[task_id]) == []
    with pytest.raises(queries.NoTasks):
        queries.list_tasks(user_id=bob.pk, now=NOW)
    assert list(Task.objects.values()) == before
    assert OutboxMessage.objects.count() == told


@pytest.mark.parametrize(
    "values",
    [
        {"priority": 5},
        {"priority": 0},
        {"estimated_sections": 5},
        {"estimated_sections": 0},
        {"is_completed": True},
        {"completed_at": NOW},
    ],
)
def test_database_refuses_a_row_that_no_task_can_be(alice, values):
    row = {"title": "x", "priority": 1, "created_at": NOW, "updated_at": NOW} | values

    with pytest.raises(IntegrityError), transaction.atomic():
        Task.objects.create(user=alice, **row)
