"""Task classes are read from a copy in the cache, and never from an old one."""

import pytest
from django.core.cache import cache
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tasks import operations, queries
from tasks.models import TaskRevision
from tests.task_rows import NOW, add_class, add_task, draft

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def empty_cache():
    cache.clear()


def listed(user):
    return [view.name for view in queries.list_classes(user_id=user.pk)]


def got(user, view):
    found = queries.get_class(user_id=user.pk, task_class_id=view.id)
    return found.name, [item.content for item in found.items]


def tables(step):
    """Return which tables a step reads, in order."""
    with CaptureQueriesContext(connection) as captured:
        step()
    names = ("task_revisions", "task_classes", "task_items")
    return [next(name for name in names if name in query["sql"]) for query in captured]


def test_list_and_get_read_the_copy(alice):
    view = add_class(alice, "One", "Two", name="Algebra")
    assert tables(lambda: listed(alice)) == ["task_revisions", "task_classes"]
    assert tables(lambda: got(alice, view)) == ["task_revisions", "task_classes", "task_items"]

    assert tables(lambda: listed(alice)) == ["task_revisions"]
    assert tables(lambda: got(alice, view)) == ["task_revisions"]
    assert (listed(alice), got(alice, view)) == (["Algebra"], ("Algebra", ["One", "Two"]))


def test_copies_of_classes_outlive_writes_of_tasks_and_the_reverse(alice):
    add_class(alice)
    add_task(alice)
    listed(alice)
    queries.list_tasks(user_id=alice.pk, now=NOW)

    add_task(alice)
    assert tables(lambda: listed(alice)) == ["task_revisions"]
    queries.list_tasks(user_id=alice.pk, now=NOW)
    add_class(alice)
    assert tables(lambda: queries.list_tasks(user_id=alice.pk, now=NOW)) == ["task_revisions"]


@pytest.mark.parametrize("write", ["add", "change", "delete_item", "delete_class"])
def test_every_write_of_classes_is_seen_by_the_next_read(alice, write):
    view, other = add_class(alice, "One", "Two", name="A"), add_class(alice, "Three", name="B")
    assert (listed(alice), got(alice, view)[1], got(alice, other)[1]) == (["B", "A"], ["One", "Two"], ["Three"])

    {
        "add": lambda: add_class(alice, name="C"),
        "change": lambda: operations.change_class(
            user_id=alice.pk, task_class_id=view.id, draft=draft((view.items[1].id, "Two"), "New", name="D"), now=NOW
        ),
        "delete_item": lambda: operations.delete_item(user_id=alice.pk, task_item_id=view.items[0].id, now=NOW),
        "delete_class": lambda: operations.delete_class(user_id=alice.pk, task_class_id=other.id, now=NOW),
    }[write]()

    names = {"add": ["C", "B", "A"], "change": ["B", "D"], "delete_item": ["B", "A"], "delete_class": ["A"]}
    items = {"change": ["Two", "New"], "delete_item": ["Two"]}
    assert (listed(alice), got(alice, view)[1]) == (names[write], items.get(write, ["One", "Two"]))
    if write == "delete_class":
        with pytest.raises(queries.TaskClassNotFound):
            got(alice, other)


def test_a_copy_of_alices_class_is_no_copy_for_bob(alice, bob):
    view = add_class(alice)
    add_class(bob, name="His")
    got(alice, view)
    listed(alice)

    assert listed(bob) == ["His"]
    with pytest.raises(queries.TaskClassNotFound):
        got(bob, view)


def test_a_write_that_was_rolled_back_leaves_the_copy(alice):
    view = add_class(alice, name="A")
    listed(alice)
    before = TaskRevision.objects.get().class_revision

    with transaction.atomic():
        operations.delete_class(user_id=alice.pk, task_class_id=view.id, now=NOW)
        transaction.set_rollback(True)

    assert TaskRevision.objects.get().class_revision == before
    assert (tables(lambda: listed(alice)), listed(alice)) == (["task_revisions"], ["A"])


def test_classes_do_not_need_the_cache(alice, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    view = add_class(alice, "One", name="A")

    assert (listed(alice), got(alice, view)) == (["A"], ("A", ["One"]))
