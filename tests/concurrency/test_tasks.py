"""Tasks that race: two devices get one answer, an order stays an order, and no reader brings an old list back."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection

from outbox.models import OutboxMessage
from tasks import operations, queries
from tasks.contracts import Completion, TaskChange
from tasks.models import Task, TaskItem, TaskRevision
from tasks.revisions import read_through
from tests.racing import run_at_once
from tests.task_rows import NOW, PASSED, add_class, add_task, draft

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def empty_cache():
    cache.clear()


def told(kind):
    return OutboxMessage.objects.filter(biz_type=kind).count()


def titles(user):
    return [view.row.title for view in queries.list_tasks(user_id=user.pk, now=NOW)]


def test_two_devices_complete_a_task_and_both_get_the_winners_moment(alice):
    for turn in range(10):
        task_id = add_task(alice)
        moments = [NOW.replace(minute=turn), NOW.replace(minute=turn, second=30)]
        outcomes = run_at_once(
            *[
                lambda at=at, task_id=task_id: operations.complete_task(user_id=alice.pk, task_id=task_id, now=at)
                for at in moments
            ]
        )

        first, second = sorted(outcomes, key=lambda done: done.was_completed)
        assert isinstance(first, Completion)
        assert (first.was_completed, second.was_completed) == (False, True)
        assert replace(first, was_completed=True) == second
        assert Task.objects.get(pk=task_id).completed_at == first.completed_at
    assert told("task.item.completed") == 10


def test_complete_and_delete_at_once_leave_one_of_two_orders(alice):
    for _ in range(10):
        task_id = add_task(alice)
        completed, deleted = run_at_once(
            lambda task_id=task_id: operations.complete_task(user_id=alice.pk, task_id=task_id, now=NOW),
            lambda task_id=task_id: operations.delete_task(user_id=alice.pk, task_id=task_id, now=NOW),
        )
        task = Task.objects.get(pk=task_id)
        assert deleted is None
        assert task.deleted_at == NOW
        assert task.is_completed == (not isinstance(completed, operations.TaskNotFound))


def test_promotions_at_once_promote_once(alice):
    ids = [add_task(alice, priority=2, urgency_threshold_at=PASSED) for _ in range(5)]

    outcomes = run_at_once(
        *[lambda: operations.promote_urgent_tasks(user_id=alice.pk, task_ids=ids, now=NOW)] * 3,
        *[lambda: operations.promote_due_tasks(now=NOW)] * 3,
    )

    assert sorted(outcomes) == [0, 0, 0, 0, 0, 5]
    assert told("task.item.changed") == 5


def test_workers_at_once_tell_of_a_near_deadline_once(alice, bob):
    for user in (alice, bob):
        for hour in range(1, 6):
            add_task(user, deadline_at=NOW + timedelta(hours=hour))

    outcomes = run_at_once(*[lambda: operations.tell_due_soon(within=timedelta(days=1), now=NOW)] * 4)

    assert sum(outcomes) == 10, outcomes
    assert told("task.item.due_soon") == 10


def test_complete_and_tell_due_soon_at_once_never_tell_of_what_is_completed(alice):
    for _ in range(10):
        task_id = add_task(alice, deadline_at=NOW + timedelta(hours=1))
        run_at_once(
            lambda task_id=task_id: operations.complete_task(user_id=alice.pk, task_id=task_id, now=NOW),
            lambda: operations.tell_due_soon(within=timedelta(days=1), now=NOW),
        )
        kinds = OutboxMessage.objects.filter(payload__contains=f'"task_id":{task_id},').order_by("id")
        assert list(kinds.values_list("biz_type", flat=True))[1:] in (
            ["task.item.completed"],
            ["task.item.due_soon", "task.item.completed"],
        )


def test_readers_at_once_ask_once(alice):
    add_task(alice, priority=2, urgency_threshold_at=PASSED)

    outcomes = run_at_once(*[lambda: operations.show_tasks(user_id=alice.pk, now=NOW)] * 8)

    assert [[view.priority for view in views] for views in outcomes] == [[1]] * 8
    assert told("task.urgency.promote.requested") == 1


def test_first_writes_of_a_user_at_once_never_deadlock(alice, bob):
    for turn in range(5):
        TaskRevision.objects.all().delete()
        outcomes = run_at_once(
            *[lambda turn=turn, user=user: add_task(user, f"T{turn}") for user in (alice, bob) for _ in range(6)]
        )
        assert all(isinstance(outcome, int) for outcome in outcomes), outcomes
    assert (Task.objects.count(), TaskRevision.objects.count()) == (60, 2)


def test_events_of_a_user_have_the_order_of_the_changes(alice):
    task_id = add_task(alice)

    def rename(number):
        change = TaskChange(title=f"Title {number}")
        operations.update_task(user_id=alice.pk, task_id=task_id, change=change, now=NOW)

    assert run_at_once(*[lambda number=number: rename(number) for number in range(12)]) == [None] * 12

    payloads = OutboxMessage.objects.order_by("id").values_list("payload", flat=True)
    assert f'"title":"{Task.objects.get().title}"' in payloads[12].replace('": "', '":"')


@pytest.mark.parametrize("is_read_first", [True, False])
def test_a_reader_that_a_writer_overtakes_does_not_bring_the_old_list_back(alice, is_read_first):
    """The reader has its revision, and perhaps its rows, when the writer commits; then it makes its copy."""
    task_id = add_task(alice, "Old")
    in_between, committed = threading.Barrier(2, timeout=10), threading.Event()

    def slow_read():
        rows = list(Task.objects.filter(user=alice).values_list(*queries.COLUMNS)) if is_read_first else None
        in_between.wait()
        assert committed.wait(timeout=10)
        return rows or list(Task.objects.filter(user=alice).values_list(*queries.COLUMNS))

    def write():
        in_between.wait()
        change = TaskChange(title="New")
        operations.update_task(user_id=alice.pk, task_id=task_id, change=change, now=NOW)
        committed.set()
        return titles(alice)

    seen, after_commit = run_at_once(lambda: read_through(user_id=alice.pk, read=slow_read), write)

    assert [row[2] for row in seen] == ["Old" if is_read_first else "New"]
    assert after_commit == ["New"]
    assert titles(alice) == ["New"]
    assert titles(alice) == ["New"]


class OvertakenReader:
    """A cache whose first caller lets a writer commit, before it reads its rows or before it copies them."""

    def __init__(self, is_read_first):
        self.began, self.committed = threading.Barrier(2, timeout=10), threading.Event()
        self._moment = "set" if is_read_first else "get"
        self._reader = None

    def _let_overtake(self, moment):
        if moment == self._moment and threading.get_ident() == self._reader:
            self.began.wait()
            assert self.committed.wait(timeout=10)

    def read(self, step):
        self._reader = threading.get_ident()
        return step()

    def get(self, key):
        found = cache.get(key)
        self._let_overtake("get")
        return found

    def set(self, *copy):
        self._let_overtake("set")
        cache.set(*copy)


@pytest.mark.parametrize("is_read_first", [True, False])
@pytest.mark.parametrize("is_list", [True, False])
def test_a_reader_that_a_writer_overtakes_does_not_bring_an_old_class_back(alice, is_list, is_read_first, monkeypatch):
    """The same for the list of task classes and for one class, through the queries that the routes call."""
    view = add_class(alice, name="Old")
    overtaken = OvertakenReader(is_read_first)
    monkeypatch.setattr("tasks.revisions.cache", overtaken)

    def names():
        if is_list:
            return [found.name for found in queries.list_classes(user_id=alice.pk)]
        return [queries.get_class(user_id=alice.pk, task_class_id=view.id).name]

    def write():
        overtaken.began.wait()
        wanted = draft(*[(item.id, item.content) for item in view.items], name="New")
        operations.change_class(user_id=alice.pk, task_class_id=view.id, draft=wanted, now=NOW)
        overtaken.committed.set()
        return names()

    outcomes = run_at_once(lambda: overtaken.read(names), write)

    assert outcomes == [["Old" if is_read_first else "New"], ["New"]]
    assert [names(), names()] == [["New"], ["New"]]


def test_readers_and_writers_never_show_what_was_overwritten(alice):
    task_id = add_task(alice, "0")
    wrong = []

    def write():
        for number in range(1, 60):
            change = TaskChange(title=str(number))
            operations.update_task(user_id=alice.pk, task_id=task_id, change=change, now=NOW)
            if titles(alice) != [str(number)]:
                wrong.append(number)

    def read():
        seen = [int(titles(alice)[0]) for _ in range(120)]
        return seen == sorted(seen)

    assert run_at_once(write, read, read) == [None, True, True]
    assert wrong == []


def test_two_hundred_order_changes_at_once_keep_the_order_dense(alice):
    view = add_class(alice, *[f"Item {number}" for number in range(8)])
    ids = [item.id for item in view.items]
    calls_each = 10

    def shuffle(seed):
        for step in range(calls_each):
            shift = (seed * 3 + step) % 8
            wanted = [(pk, f"Item of {pk}") for pk in (ids[shift:] + ids[:shift])[:: 1 if step % 2 else -1]]
            operations.change_class(user_id=alice.pk, task_class_id=view.id, draft=draft(*wanted), now=NOW)

    assert run_at_once(*[lambda seed=seed: shuffle(seed) for seed in range(20)]) == [None] * 20

    rows = list(TaskItem.objects.filter(category_id=view.id).order_by("order").values_list("order", "pk"))
    assert [order for order, _pk in rows] == list(range(1, 9))
    assert {pk for _order, pk in rows} == set(ids)


def test_items_deleted_at_once_leave_a_dense_order(alice):
    view = add_class(alice, *[f"Item {number}" for number in range(12)])
    gone = [item.id for item in view.items][::2]

    outcomes = run_at_once(
        *[lambda pk=pk: operations.delete_item(user_id=alice.pk, task_item_id=pk, now=NOW) for pk in gone]
    )

    assert [outcome.task_item_ids for outcome in outcomes] == [(pk,) for pk in gone]
    left = queries.get_class(user_id=alice.pk, task_class_id=view.id).items
    assert [item.order for item in left] == list(range(1, 7))
    assert connection.in_atomic_block is False
