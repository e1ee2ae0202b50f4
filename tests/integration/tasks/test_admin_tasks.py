"""The operators' pages of tasks and task classes."""

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox.models import OutboxMessage
from smartflow.kernel.clock import utc_now
from tasks import operations
from tasks.models import Task, TaskClass
from tests.admin_rows import operator_client
from tests.task_rows import add_class, add_deleted_task, add_task

pytestmark = pytest.mark.django_db
TASKS, CLASSES = "/admin/tasks/task/", "/admin/tasks/taskclass/"
SEES = ("tasks.view_task", "tasks.view_taskclass", "tasks.view_taskitem")


@pytest.fixture
def operator():
    return operator_client(*SEES, "tasks.delete_task", "tasks.change_task", "tasks.delete_taskclass")


def listed(client, url, **query):
    return [row.pk for row in client.get(url, query).context["cl"].result_list]


def act(client, url, action, *ids):
    return client.post(url, {"action": action, "_selected_action": ids}, follow=True)


def test_tasks_are_found_by_id_user_and_state(operator, alice, bob):
    one, done, gone, his = add_task(alice), add_task(alice), add_deleted_task(alice), add_task(bob)
    operations.complete_task(user_id=alice.pk, task_id=done, now=utc_now())

    assert listed(operator, TASKS) == [his, gone, done, one]
    assert listed(operator, TASKS, q="alice") == [done, one]
    assert listed(operator, TASKS, q=str(alice.pk), state="completed") == [done]
    assert listed(operator, TASKS, q="alice", state="deleted") == [gone]
    assert listed(operator, TASKS, q=f"#{gone}") == [gone]
    assert listed(operator, TASKS, state="open") == [his, one]
    assert listed(operator, TASKS, state="completed") == [done]
    assert listed(operator, TASKS, state="deleted") == [gone]
    assert listed(operator, TASKS, q="nobody") == []


@pytest.mark.parametrize("state", ["", "open", "deleted"])
def test_tasks_are_paged_by_key(operator, alice, state):
    make = add_deleted_task if state == "deleted" else add_task
    ids = [make(alice) for _ in range(60)]
    first = operator.get(TASKS, {"state": state} if state else {}).context["cl"]
    second = operator.get(TASKS + first.next_page).context["cl"]

    assert [row.pk for row in (*first.result_list, *second.result_list)] == ids[::-1]


def test_tasks_are_deleted_and_restored_by_operations_and_it_is_logged(operator, alice):
    ids = [add_task(alice), add_task(alice)]

    act(operator, TASKS, "delete_tasks", *ids)
    assert Task.objects.filter(deleted_at__isnull=False).count() == 2
    act(operator, TASKS, "restore_tasks", *ids)

    assert Task.objects.filter(deleted_at__isnull=True).count() == 2
    told = OutboxMessage.objects.order_by("id").values_list("biz_type", flat=True)
    assert list(told)[2:] == ["task.item.deleted"] * 2 + ["task.item.changed"] * 2
    assert LogEntry.objects.filter(change_message__contains="by an operator").count() == 4


def test_tasks_that_are_too_old_stay_deleted(operator, alice):
    task_id = add_deleted_task(alice)
    Task.objects.update(deleted_at="2020-01-01T00:00:00Z")

    answer = act(operator, TASKS, "restore_tasks", task_id)

    assert "0 tasks were restored" in answer.content.decode()
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("url", "action", "make"), [(TASKS, "delete_tasks", add_task), (TASKS, "restore_tasks", add_deleted_task)]
)
def test_actions_need_their_permission(alice, url, action, make):
    task_id = make(alice)
    before = list(Task.objects.values())

    act(operator_client(*SEES), url, action, task_id)

    assert list(Task.objects.values()) == before


def test_classes_are_found_by_id_user_and_mode(operator, alice, bob):
    hers, his = add_class(alice).id, add_class(bob, mode="auto").id

    assert listed(operator, CLASSES) == [his, hers]
    assert listed(operator, CLASSES, q="alice") == [hers]
    assert listed(operator, CLASSES, q=f"#{his}") == [his]
    assert listed(operator, CLASSES, mode="auto") == [his]


def test_class_page_shows_its_items_in_order_and_costs_the_same_with_many(operator, alice):
    few, many = add_class(alice, "B", "A"), add_class(alice, *[f"Item {number:03}" for number in range(100)])
    operator.get(f"{CLASSES}{few.id}/change/")
    costs = []
    for view in (few, many):
        with CaptureQueriesContext(connection) as captured:
            page = operator.get(f"{CLASSES}{view.id}/change/").content.decode()
        costs.append(len(captured))
        places = [page.index(item.content) for item in view.items if len(item.content) > 1]
        assert places == sorted(places)
    assert costs[0] == costs[1] <= 12


def test_classes_are_deleted_by_the_operation_and_it_is_logged(operator, alice):
    view, kept = add_class(alice), add_class(alice)

    act(operator, CLASSES, "delete_classes", view.id)

    assert list(TaskClass.objects.values_list("pk", flat=True)) == [kept.id]
    assert OutboxMessage.objects.get().biz_type == "task.class_items.deleted"
    assert LogEntry.objects.get().object_repr == f"task class {view.id} of alice"


def test_an_events_key_leads_to_the_users_tasks_or_to_the_class(operator, alice):
    view = add_class(alice)

    of_user = operator.get(f"{TASKS}by-key/user:{alice.pk}/")
    of_class = operator.get(f"{TASKS}by-key/task_class:{view.id}/")

    assert (of_user.status_code, of_user["Location"]) == (302, f"{TASKS}?q={alice.pk}")
    assert of_class["Location"] == f"{CLASSES}{view.id}/change/"
