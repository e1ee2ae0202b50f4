"""Lists of tasks: what is shown, in which order, page by page, and the quadrant as it is now."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from smartflow.api.rows import read_tuples
from tasks import operations, queries
from tasks.contracts import NewTask, Page, Sort, TaskChange, TaskFilter
from tasks.models import Task, TaskRevision
from tests.task_rows import NOW, PASSED, add_task

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def empty_cache():
    cache.clear()


def many(user, count=200, seed=7):
    """Write tasks of every kind, and return them."""
    draw = random.Random(seed)
    moments = [None, *(NOW + timedelta(hours=hours) for hours in range(-3, 4))]
    tasks = []
    for number in range(count):
        is_completed = draw.random() < 0.3
        tasks.append(
            Task(
                user=user,
                title=draw.choice(["Algebra", "ALGEBRA II", "Essay", "作业 100%", "a_b"]) + f" {number}",
                priority=draw.randint(1, 4),
                is_completed=is_completed,
                completed_at=NOW if is_completed else None,
                deadline_at=draw.choice(moments),
                urgency_threshold_at=draw.choice(moments),
                created_at=NOW + timedelta(minutes=number // 3),
                updated_at=NOW,
                deleted_at=NOW if draw.random() < 0.1 else None,
            )
        )
    Task.objects.bulk_create(tasks)
    return list(Task.objects.filter(user=user, deleted_at__isnull=True).order_by("id"))


def walk(user, *, sort=Sort.CREATED, limit=7, **wanted):
    """Read every page, and return the views."""
    found, cursor = [], ""
    while True:
        page = Page(sort=sort, limit=limit, cursor=cursor)
        result = queries.list_page(user_id=user.pk, wanted=TaskFilter(**wanted), page=page, now=NOW)
        assert len(result.tasks) <= limit
        found += result.tasks
        cursor = result.next_cursor
        if not cursor:
            return found


def ids(views):
    return [view.row.id for view in views]


def test_list_tasks_shows_all_in_their_present_quadrant(alice, bob):
    tasks = many(alice)
    add_task(bob, "Bob's")

    views = queries.list_tasks(user_id=alice.pk, now=NOW)

    assert ids(views) == [task.pk for task in tasks]
    assert {view.priority for view in views} == {1, 2, 3, 4}
    for view in views:
        due = not view.row.is_completed and view.row.urgency_threshold_at and view.row.urgency_threshold_at <= NOW
        assert view.priority == ({2: 1, 4: 3}.get(view.row.priority, view.row.priority) if due else view.row.priority)


def test_list_tasks_tells_when_there_are_none(alice):
    with pytest.raises(queries.NoTasks) as told:
        queries.list_tasks(user_id=alice.pk, now=NOW)
    assert told.value.code == "10001"


@pytest.mark.parametrize("quadrant", [1, 2, 3, 4])
def test_list_page_finds_a_quadrant_as_the_pure_function_derives_it(alice, quadrant):
    many(alice)
    derived = [view for view in queries.list_tasks(user_id=alice.pk, now=NOW) if view.priority == quadrant]

    assert ids(walk(alice, quadrant=quadrant)) == ids(derived)
    assert len(derived) > 10


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"is_completed": True},
        {"is_completed": False},
        {"keyword": "algebra"},
        {"keyword": "100%"},
        {"keyword": "a_b"},
        {"keyword": "作业"},
        {"deadline_after": NOW},
        {"deadline_before": NOW},
        {"deadline_after": NOW, "deadline_before": NOW + timedelta(hours=1)},
        {"quadrant": 1, "is_completed": False, "keyword": "e", "deadline_after": NOW},
    ],
)
@pytest.mark.parametrize("sort", list(Sort))
def test_list_page_shows_each_wanted_task_once_in_order(alice, bob, wanted, sort):
    many(alice)
    many(bob, 20)

    def is_wanted(view):
        row = view.row
        return (
            wanted.get("quadrant", view.priority) == view.priority
            and wanted.get("is_completed", row.is_completed) == row.is_completed
            and wanted.get("keyword", "").lower() in row.title.lower()
            and ("deadline_after" not in wanted or (row.deadline_at and row.deadline_at >= wanted["deadline_after"]))
            and ("deadline_before" not in wanted or (row.deadline_at and row.deadline_at < wanted["deadline_before"]))
        )

    order = {
        Sort.CREATED: lambda view: view.row.id,
        Sort.NEWEST: lambda view: (NOW - view.row.created_at, -view.row.id),
        Sort.DEADLINE: lambda view: (view.row.deadline_at or datetime.max.replace(tzinfo=UTC), view.row.id),
    }[sort]
    expected = sorted(filter(is_wanted, queries.list_tasks(user_id=alice.pk, now=NOW)), key=order)

    assert ids(walk(alice, sort=sort, **wanted)) == ids(expected)
    assert expected


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize(
    "cursor",
    ["x", "created~~1", "~1~1", "created~1", "deadline~1", "deadline~x~1", "-created~" + "9" * 60 + "~1", "deadline~~"],
)
def test_list_page_refuses_a_cursor_of_another_list(alice, sort, cursor):
    page = Page(sort=sort, limit=5, cursor=cursor)

    with pytest.raises(queries.CursorInvalid):
        queries.list_page(user_id=alice.pk, wanted=TaskFilter(), page=page, now=NOW)


def test_list_page_goes_on_behind_a_task_that_was_deleted_meanwhile(alice):
    tasks = [add_task(alice, f"T{number}") for number in range(6)]
    first = queries.list_page(user_id=alice.pk, wanted=TaskFilter(), page=Page(limit=3), now=NOW)
    operations.delete_task(user_id=alice.pk, task_id=tasks[2], now=NOW)

    rest = queries.list_page(
        user_id=alice.pk, wanted=TaskFilter(), page=Page(limit=3, cursor=first.next_cursor), now=NOW
    )

    assert ids(first.tasks) + ids(rest.tasks) == tasks


def test_list_completion_keeps_the_order_and_names_each_once(alice, bob):
    one, two, others = add_task(alice), add_task(alice), add_task(bob)
    operations.complete_task(user_id=alice.pk, task_id=two, now=NOW)

    found = queries.list_completion(user_id=alice.pk, task_ids=[two, one, two, others, 10**18])

    assert found == [(two, True), (one, False)]


def test_rows_have_the_types_that_django_gives_them(alice):
    add_task(alice, deadline_at=NOW + SECOND / 3)
    done = add_task(alice, "学习")
    operations.complete_task(user_id=alice.pk, task_id=done, now=NOW)
    rows = Task.objects.order_by("id").values_list(*queries.COLUMNS)

    assert read_tuples(rows) == list(rows)
    assert [list(map(type, row)) for row in read_tuples(rows)] == [list(map(type, row)) for row in rows]
    assert {row[6].tzinfo for row in read_tuples(rows) if row[6]} == {UTC}
    assert read_tuples(rows.filter(pk__in=[])) == []


# --- the copy in the cache --------------------------------------------------------------------------------------------


def test_list_tasks_reads_the_copy_and_never_an_old_one(alice):
    task_id = add_task(alice, "One")
    queries.list_tasks(user_id=alice.pk, now=NOW)

    with CaptureQueriesContext(connection) as captured:
        assert [view.row.title for view in queries.list_tasks(user_id=alice.pk, now=NOW)] == ["One"]
    assert ["task_revisions" in query["sql"] for query in captured] == [True]

    operations.update_task(user_id=alice.pk, task_id=task_id, change=TaskChange(title="Two"), now=NOW + SECOND)
    with CaptureQueriesContext(connection) as captured:
        assert [view.row.title for view in queries.list_tasks(user_id=alice.pk, now=NOW)] == ["Two"]
    assert len(captured) == 2


def test_copy_holds_stored_priorities_and_readers_derive_them(alice):
    task = NewTask(title="x", priority=2, urgency_threshold_at=NOW + SECOND)
    operations.create_task(user_id=alice.pk, task=task, now=NOW)

    assert [view.priority for view in queries.list_tasks(user_id=alice.pk, now=NOW)] == [2]
    with CaptureQueriesContext(connection) as captured:
        assert [view.priority for view in queries.list_tasks(user_id=alice.pk, now=NOW + SECOND)] == [1]
    assert len(captured) == 1


@pytest.mark.parametrize("write", ["create", "complete", "undo", "delete", "restore", "promote"])
def test_every_write_takes_another_revision(alice, write):
    task_id = add_task(alice, priority=2, urgency_threshold_at=PASSED)
    done, gone = add_task(alice), add_task(alice)
    operations.complete_task(user_id=alice.pk, task_id=done, now=NOW)
    operations.delete_task(user_id=alice.pk, task_id=gone, now=NOW)
    before = TaskRevision.objects.get().revision

    {
        "create": lambda: add_task(alice),
        "complete": lambda: operations.complete_task(user_id=alice.pk, task_id=task_id, now=NOW),
        "undo": lambda: operations.undo_complete_task(user_id=alice.pk, task_id=done, now=NOW),
        "delete": lambda: operations.delete_task(user_id=alice.pk, task_id=task_id, now=NOW),
        "restore": lambda: operations.restore_task(user_id=alice.pk, task_id=gone, now=NOW),
        "promote": lambda: operations.promote_urgent_tasks(user_id=alice.pk, now=NOW),
    }[write]()

    assert TaskRevision.objects.get().revision != before


def test_list_tasks_makes_no_copy_of_too_many(alice, monkeypatch):
    add_task(alice)
    queries.list_tasks(user_id=alice.pk, now=NOW)
    assert cache.get(f"tasks:{alice.pk}:") is not None
    monkeypatch.setattr("tasks.revisions.MOST_COPIED", 2)
    cache.clear()
    for number in range(2):
        add_task(alice, f"T{number}")

    assert len(queries.list_tasks(user_id=alice.pk, now=NOW)) == 3
    assert cache.get(f"tasks:{alice.pk}:") is None


def test_list_tasks_does_not_need_the_cache(alice, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    add_task(alice, "One")

    assert [view.row.title for view in queries.list_tasks(user_id=alice.pk, now=NOW)] == ["One"]
