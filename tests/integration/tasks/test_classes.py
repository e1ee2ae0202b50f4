"""Task classes: items keep their ids through changes, the order stays dense, and what goes is told."""

import json
from dataclasses import replace
from datetime import date, timedelta

import pytest
from django.db import IntegrityError, transaction

from outbox.models import OutboxMessage
from outbox.testing import drain
from tasks import operations, queries
from tasks.contracts import ClassMode, ItemDraft
from tasks.models import TaskClass, TaskItem
from tests.task_rows import NOW, add_class, draft

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(hours=1)
PLACE = {"week": 3, "day_of_week": 2, "section_from": 1, "section_to": 2}


def items(view):
    return [(item.id, item.order, item.content) for item in view.items]


def change(user, view, *wanted, **values):
    return operations.change_class(user_id=user.pk, task_class_id=view.id, draft=draft(*wanted, **values), now=LATER)


def told():
    rows = OutboxMessage.objects.filter(biz_type="task.class_items.deleted").order_by("id")
    return [json.loads(row.payload)["payload"] for row in rows]


def with_items(view, *wanted):
    return replace(draft("x"), items=tuple(wanted))


def test_add_class_numbers_the_items_in_their_order(alice):
    wanted = with_items(None, ItemDraft(order=30, content="Last"), ItemDraft(order=2, content="First"))

    view = operations.add_class(user_id=alice.pk, draft=wanted, now=NOW)

    assert [(item.order, item.content, item.status) for item in view.items] == [(1, "First", 1), (2, "Last", 1)]
    assert view == queries.get_class(user_id=alice.pk, task_class_id=view.id)


def test_change_class_keeps_ids_moves_adds_and_deletes(alice):
    view = add_class(alice, "One", "Two", "Three", "Four")
    one, two, three, four = (item.id for item in view.items)
    TaskItem.objects.filter(pk=four).update(embedded_time=PLACE, status=2)

    changed = change(alice, view, (four, "Four"), "New", (two, "Two, again"), (one, "One"), name="Renamed")

    found = {item.content: item.id for item in changed.items}
    assert [(content, found[content]) for content in ("Four", "Two, again", "One")] == [
        ("Four", four),
        ("Two, again", two),
        ("One", one),
    ]
    assert [item.order for item in changed.items] == [1, 2, 3, 4]
    assert [item.content for item in changed.items] == ["Four", "New", "Two, again", "One"]
    assert changed.items[0].embedded_time == PLACE
    assert found["New"] > four
    assert (changed.name, TaskItem.objects.count()) == ("Renamed", 4)
    assert [(event["task_item_ids"], event["is_class_deleted"]) for event in told()] == [([three], False)]


def test_change_class_to_what_it_is_writes_no_item(alice):
    view = add_class(alice)
    before = list(TaskItem.objects.order_by("id").values())

    change(alice, view, *[(item.id, item.content) for item in view.items])

    assert list(TaskItem.objects.order_by("id").values()) == before
    assert told() == []


def test_change_class_reverses_five_hundred_items(alice):
    view = add_class(alice, *[f"Item {number}" for number in range(500)])

    changed = change(alice, view, *[(item.id, item.content) for item in reversed(view.items)])

    assert [item.id for item in changed.items] == [item.id for item in reversed(view.items)]
    assert [item.order for item in changed.items] == list(range(1, 501))


def test_change_class_refuses_an_item_of_another_class_and_changes_nothing(alice):
    view, other = add_class(alice), add_class(alice)

    with pytest.raises(operations.ItemNotInClass) as refused:
        change(alice, view, (view.items[0].id, "One"), (other.items[0].id, "Stolen"))

    assert refused.value.code == "40048"
    assert items(queries.get_class(user_id=alice.pk, task_class_id=view.id)) == items(view)


def test_delete_item_closes_the_gap_and_tells_it(alice):
    view = add_class(alice, "One", "Two", "Three", "Four")
    gone = view.items[1].id

    deleted = operations.delete_item(user_id=alice.pk, task_item_id=gone, now=LATER)

    left = queries.get_class(user_id=alice.pk, task_class_id=view.id)
    assert [(item.order, item.content) for item in left.items] == [(1, "One"), (2, "Three"), (3, "Four")]
    assert (deleted.task_class_id, deleted.task_item_ids) == (view.id, (gone,))
    (event,) = told()
    assert (event["task_class_id"], event["task_item_ids"]) == (view.id, [gone])
    with pytest.raises(operations.TaskItemNotFound) as refused:
        operations.delete_item(user_id=alice.pk, task_item_id=gone, now=LATER)
    assert refused.value.code == "40036"


def test_delete_class_takes_its_items_along_and_tells_which(alice):
    view, kept = add_class(alice), add_class(alice, "Kept")

    deleted = operations.delete_class(user_id=alice.pk, task_class_id=view.id, now=LATER)

    assert deleted.task_item_ids == tuple(item.id for item in view.items)
    assert list(TaskItem.objects.values_list("category_id", flat=True)) == [kept.id]
    (event,) = told()
    assert (event["task_item_ids"], event["is_class_deleted"]) == (list(deleted.task_item_ids), True)
    with pytest.raises(operations.TaskClassUnknown) as refused:
        operations.delete_class(user_id=alice.pk, task_class_id=view.id, now=LATER)
    assert refused.value.code == "40040"


def test_delete_item_joins_the_transaction_of_whoever_arranged_it(alice):
    """The seam of docs/adr/0013: what frees the timetable fails, so the item stays, and nothing is told."""
    view = add_class(alice)

    with transaction.atomic():
        operations.delete_item(user_id=alice.pk, task_item_id=view.items[0].id, now=LATER)
        transaction.set_rollback(True)

    assert items(queries.get_class(user_id=alice.pk, task_class_id=view.id)) == items(view)
    assert told() == []


def test_deletion_is_a_fact_that_may_go_unread(alice):
    view = add_class(alice)
    operations.delete_class(user_id=alice.pk, task_class_id=view.id, now=LATER)

    drain()

    assert list(OutboxMessage.objects.values_list("status", flat=True)) == ["consumed"]


@pytest.mark.parametrize(
    ("values", "code", "field"),
    [
        ({"name": " "}, "40004", "name"),
        ({"name": "x" * 256}, "40005", "name"),
        ({"mode": ClassMode.AUTO, "start_date": None}, "40044", "start_date"),
        ({"mode": ClassMode.AUTO, "end_date": None}, "40044", "end_date"),
        ({"start_date": date(2026, 7, 1)}, "40045", "end_date"),
        ({"total_slots": 0}, "40005", "config.total_slots"),
        ({"excluded_slots": (1, 7)}, "40005", "config.excluded_slots"),
        ({"excluded_days_of_week": (0,)}, "40005", "config.excluded_days_of_week"),
        ({"items": ()}, "40004", "items"),
        ({"items": (ItemDraft(order=0, content="x"),)}, "40005", "items.0.order"),
        ({"items": (ItemDraft(order=1, content=" "),)}, "40004", "items.0.content"),
        ({"items": (ItemDraft(order=1, content="x" * 2001),)}, "40005", "items.0.content"),
        ({"items": (ItemDraft(order=1, content="a"), ItemDraft(order=1, content="b"))}, "40005", "items"),
        ({"items": tuple(ItemDraft(order=n, content="a", id=7) for n in (1, 2))}, "40005", "items"),
        ({"items": tuple(ItemDraft(order=n, content="a") for n in range(1, 502))}, "40005", "items"),
    ],
)
def test_add_class_names_the_field_and_the_bound(alice, values, code, field):
    with pytest.raises(Exception) as refused:
        operations.add_class(user_id=alice.pk, draft=replace(draft("x"), **values), now=NOW)

    assert (refused.value.code, list(refused.value.fields)) == (code, [field])
    assert not TaskClass.objects.exists()


def test_add_class_keeps_excluded_numbers_once_and_sorted(alice):
    view = add_class(alice, excluded_slots=(6, 1, 6), excluded_days_of_week=(7, 7))

    assert (view.excluded_slots, view.excluded_days_of_week) == ([1, 6], [7])


def test_nothing_of_alices_class_exists_for_bob(alice, bob):
    view = add_class(alice, "Secret")
    before = (list(TaskClass.objects.values()), list(TaskItem.objects.values()))

    with pytest.raises(operations.TaskClassNotFound):
        queries.get_class(user_id=bob.pk, task_class_id=view.id)
    with pytest.raises(operations.TaskClassNotFound):
        change(bob, view, "Bob was here")
    with pytest.raises(operations.TaskItemNotFound):
        operations.delete_item(user_id=bob.pk, task_item_id=view.items[0].id, now=LATER)
    with pytest.raises(operations.TaskClassUnknown):
        operations.delete_class(user_id=bob.pk, task_class_id=view.id, now=LATER)
    with pytest.raises(operations.ItemNotInClass):
        change(bob, add_class(bob), (view.items[0].id, "Bob was here"))
    assert queries.list_classes(user_id=bob.pk) == [
        replace(queries.get_class(user_id=bob.pk, task_class_id=TaskClass.objects.get(user=bob).pk), items=[])
    ]
    assert list(TaskClass.objects.filter(user=alice).values()) == before[0]
    assert list(TaskItem.objects.filter(category__user=alice).values()) == before[1]


@pytest.mark.parametrize(
    "values", [{"order": 1}, {"order": 0}, {"order": 9, "status": 3}], ids=["taken", "zero", "status"]
)
def test_database_refuses_an_item_that_breaks_the_order(alice, values):
    view = add_class(alice)

    with pytest.raises(IntegrityError), transaction.atomic():
        TaskItem.objects.create(category_id=view.id, content="x", created_at=NOW, updated_at=NOW, **values)
