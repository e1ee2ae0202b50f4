"""What tasks ask of MariaDB: lists, sweeps and admin pages that read a page, however many tasks there are."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tasks import operations, queries
from tasks.contracts import Page, Sort, TaskFilter
from tasks.models import Task, TaskItem
from tests.admin_rows import operator_client
from tests.factories import make_user
from tests.task_rows import NOW, add_class

pytestmark = [
    pytest.mark.services,
    pytest.mark.django_db(transaction=True),  # ANALYZE TABLE commits
    pytest.mark.skipif(connection.vendor != "mysql", reason="DATABASE_URL names no MariaDB"),
]
OF_ALICE, OTHERS, OF_OTHERS = 6_000, 30, 200
PAGE = 50


@pytest.fixture
def alice():
    """Alice with many tasks, most of them done, among users with a few; nobody's is due."""
    alice = make_user("alice")
    users = [make_user(f"u{number}") for number in range(OTHERS)]
    rows = [(alice, number) for number in range(OF_ALICE)]
    rows += [(user, number) for user in users for number in range(OF_OTHERS)]
    Task.objects.bulk_create((_task(user, number) for user, number in rows), batch_size=1000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE tasks")
        cursor.fetchall()
    return alice


def _task(user, number):
    is_completed = number % 3 != 0
    return Task(
        user=user,
        title=f"Task {number}",
        priority=number % 4 + 1,
        is_completed=is_completed,
        completed_at=NOW if is_completed else None,
        deadline_at=None if number % 5 == 0 else NOW + timedelta(minutes=number),
        urgency_threshold_at=NOW + timedelta(minutes=1 + number),
        created_at=NOW + timedelta(seconds=number),
        updated_at=NOW,
        deleted_at=NOW + timedelta(seconds=number) if number % 100 == 0 else None,
    )


def rows_read(step):
    """Return what the step gives, and how many index entries and rows the server touched for it."""
    before = _touched()
    result = step()
    return result, _touched() - before


def _touched():
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for _name, value in cursor.fetchall())


def page(user, *, cursor="", sort=Sort.CREATED, **wanted):
    return queries.list_page(
        user_id=user.pk, wanted=TaskFilter(**wanted), page=Page(sort=sort, limit=PAGE, cursor=cursor), now=NOW
    )


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize("wanted", [{}, {"is_completed": False}, {"is_completed": True}])
def test_list_pages_read_little_more_than_they_show(alice, sort, wanted):
    cursor, pages = "", 0
    while pages < 8:
        found, touched = rows_read(lambda cursor=cursor: page(alice, cursor=cursor, sort=sort, **wanted))
        assert len(found.tasks) == PAGE
        # a third of the entries is what a filter on completion wants
        assert touched < 4 * PAGE, (pages, touched)
        cursor, pages = found.next_cursor, pages + 1


def test_list_by_deadline_reads_a_window_from_its_start(alice):
    window = {"deadline_after": NOW + timedelta(minutes=4000), "deadline_before": NOW + timedelta(minutes=4200)}

    found, touched = rows_read(lambda: page(alice, sort=Sort.DEADLINE, **window))

    assert len(found.tasks) == PAGE
    assert touched < 6 * PAGE


def test_sweep_reads_what_is_due_alone_and_nothing_twice(alice):
    due = list(Task.objects.filter(user=alice, is_completed=False, deleted_at=None, priority=2)[:7])
    Task.objects.filter(pk__in=[task.pk for task in due]).update(urgency_threshold_at=NOW - timedelta(days=1))

    users, touched = rows_read(lambda: queries.list_users_with_due_tasks(now=NOW, limit=200))
    assert users == [alice.pk]
    assert touched < 30
    promoted, touched = rows_read(lambda: operations.promote_due_tasks(now=NOW))
    assert promoted == 7
    assert touched < 400
    nobody, touched = rows_read(lambda: operations.promote_due_tasks(now=NOW))
    assert (nobody, touched < 20) == (0, True), touched


def test_sweep_is_answered_from_its_index_alone(alice):
    with CaptureQueriesContext(connection) as captured:
        queries.list_users_with_due_tasks(now=NOW, limit=200)

    for plan in plans(captured, r"FROM `tasks`"):
        assert plan["key"] == "idx_task_due", plan
        assert "Using index" in plan["Extra"], plan
        assert "filesort" not in plan["Extra"], plan


def test_near_deadlines_are_found_by_their_index_alone_and_told_ones_are_not_read_again(alice):
    def near():
        return queries.list_due_soon(now=NOW, until=NOW + timedelta(minutes=600), limit=100)

    with CaptureQueriesContext(connection) as captured:
        found, touched = rows_read(near)
    assert (len(found), touched < 110) == (100, True), touched
    for plan in plans(captured, r"FROM `tasks`"):
        assert plan["key"] == "idx_task_due_soon", plan
        assert "Using index" in plan["Extra"], plan
        assert "filesort" not in plan["Extra"], plan

    Task.objects.update(due_soon_told_at=NOW)
    found, touched = rows_read(near)
    assert (found, touched < 10) == ([], True), touched


def test_prune_finds_what_it_deletes_by_its_index(alice):
    operations.prune_deleted_tasks(now=NOW)

    with CaptureQueriesContext(connection) as captured:
        pruned, touched = rows_read(lambda: operations.prune_deleted_tasks(now=NOW + timedelta(days=365)))

    assert pruned == OF_ALICE // 100 + OTHERS * (OF_OTHERS // 100)
    assert touched < 20 * pruned
    # both begin with the moment of the deletion
    assert {plan["key"] for plan in plans(captured, r"^SELECT.*deleted_at")} <= {"idx_task_state", "idx_task_due"}


def plans(captured, pattern):
    """Return MariaDB's plan of each captured read that matches; at least one does."""
    found = [query["sql"] for query in captured if re.search(pattern, query["sql"], re.DOTALL)]
    assert found, [query["sql"][:200] for query in captured]
    answers = []
    for sql in found:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN " + sql.replace("%", "%%"))
            names = [column[0] for column in cursor.description]
            answers += [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return answers


@pytest.mark.parametrize(
    "query", ["", "?state=open", "?state=completed", "?state=deleted", "?q=u7", "?q=alice", "?q=alice&state=open"]
)
def test_admin_pages_read_no_more_than_they_show(alice, query):
    client = operator_client("tasks.view_task")
    client.get(f"/admin/tasks/task/{query}")

    response, touched = rows_read(lambda: client.get(f"/admin/tasks/task/{query}"))

    assert response.status_code == 200
    assert response.context["cl"].result_list
    # a page of 51, as many users, the session and the permissions; a scan would be 12,000
    assert touched < 700, touched


def test_a_second_page_of_the_admin_reads_no_more_than_the_first(alice):
    client = operator_client("tasks.view_task")
    for query in ("", "?state=completed", "?state=deleted"):
        first = client.get(f"/admin/tasks/task/{query}").context["cl"]
        response, touched = rows_read(lambda first=first: client.get(f"/admin/tasks/task/{first.next_page}"))
        assert response.status_code == 200
        assert touched < 700, (query, touched)


def test_items_follow_their_class_in_the_database_itself(alice):
    view = add_class(alice)

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM task_classes WHERE id = %s", [view.id])

    assert not TaskItem.objects.exists()
