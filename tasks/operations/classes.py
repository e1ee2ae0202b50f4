"""Task classes and their items: adding, changing as a difference, deleting.

Whoever writes a user's classes takes their revision first, and whoever writes a class's items then locks its row. What
a deletion takes away is told in the same transaction, by `task.class_items.deleted` and by the return value: the
timetable cleans up after the one, and in the same transaction with the other (docs/adr/0013).
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import connection, transaction
from django.db.models import F

from outbox.append import append_event
from smartflow.events import TaskClassItemsDeleted
from smartflow.kernel.errors import Invalid, NotFound
from smartflow.kernel.text import noop as _
from tasks.contracts import ClassDraft, ClassView, DeletedItems, ItemDraft, ItemStatus
from tasks.models import TaskClass, TaskItem
from tasks.operations.class_rules import check_draft
from tasks.queries import TaskClassNotFound, read_class
from tasks.revisions import CLASSES, take_revision

# Where items stand while others take their places. The database checks the order row by row, so that a place must be
# free when it is taken; nobody else sees this, and a class never has so many items.
_ASIDE = 1_000_000
_COLUMNS = (
    *("name", "mode", "start_date", "end_date", "subject_type", "difficulty_level", "cognitive_intensity"),
    *("total_slots", "allow_filler_course", "strategy"),
)


class TaskClassUnknown(NotFound):
    """No such task class for this user, to whoever deletes it."""

    code = "40040"
    message = _("This task class does not exist.")


class TaskItemNotFound(NotFound):
    """No such item for this user."""

    code = "40036"
    message = _("This task-class item does not exist.")


class ItemNotInClass(Invalid):
    """A change names an item that another class has, or none."""

    code = "40048"
    message = _("This item does not belong to the task class. Leave the id out to add an item.")


def add_class(*, user_id: int, draft: ClassDraft, now: datetime) -> ClassView:
    """
    Add a task class with its items, numbered from 1 in their order.

    Transaction: one. Twice: adds another. Raises: as class_rules.check_draft; ItemNotInClass.
    """
    check_draft(draft=draft)
    row = TaskClass(user_id=user_id, created_at=now)
    with transaction.atomic():
        take_revision(user_id=user_id, of=CLASSES)
        _assign(row, draft, now)
        row.save(force_insert=True)
        _place(row, [], _in_order(draft.items), now)
        return read_class(user_id=user_id, task_class_id=row.pk)


def change_class(*, user_id: int, task_class_id: int, draft: ClassDraft, now: datetime) -> ClassView:
    """
    Make a task class what the draft says: items with an id keep it and where they are arranged, others are added,
    and those that the draft leaves out are deleted.

    Transaction: one, with the class locked. Twice: items without an id are added again.
    Raises:      TaskClassNotFound, ItemNotInClass; as class_rules.check_draft.
    """
    check_draft(draft=draft)
    with transaction.atomic():
        take_revision(user_id=user_id, of=CLASSES)
        row = _lock(user_id, task_class_id)
        if row is None:
            raise TaskClassNotFound
        _assign(row, draft, now)
        row.save()
        items = list(TaskItem.objects.filter(category_id=row.pk))
        kept = {item.id for item in draft.items if item.id is not None}
        _delete_items(row, [item.pk for item in items if item.pk not in kept], now)
        _place(row, [item for item in items if item.pk in kept], _in_order(draft.items), now)
        return read_class(user_id=user_id, task_class_id=task_class_id)


def delete_item(*, user_id: int, task_item_id: int, now: datetime) -> DeletedItems:
    """
    Delete an item, close the gap that it leaves, and tell so.

    Transaction: one, also the caller's: whoever arranged the item can take that back in the same one.
    Twice:       raises. Raises: TaskItemNotFound.
    """
    with transaction.atomic():
        take_revision(user_id=user_id, of=CLASSES)
        owner = TaskItem.objects.filter(pk=task_item_id, category__user_id=user_id).values_list("category_id").first()
        row = _lock(user_id, owner[0]) if owner else None
        item = TaskItem.objects.filter(pk=task_item_id, category_id=row.pk).first() if row else None
        if row is None or item is None:
            raise TaskItemNotFound
        deleted = _delete_items(row, [item.pk], now)
        behind = TaskItem.objects.filter(category_id=row.pk)
        behind.filter(order__gt=item.order).update(order=F("order") + _ASIDE)
        behind.filter(order__gt=_ASIDE).update(order=F("order") - _ASIDE - 1)
        return deleted


def delete_class(*, user_id: int, task_class_id: int, now: datetime) -> DeletedItems:
    """
    Delete a task class with its items and tell so.

    Transaction: one, also the caller's, as delete_item. Twice: raises. Raises: TaskClassUnknown.
    """
    with transaction.atomic():
        take_revision(user_id=user_id, of=CLASSES)
        row = _lock(user_id, task_class_id)
        if row is None:
            raise TaskClassUnknown
        ids = list(TaskItem.objects.filter(category_id=row.pk).order_by("order").values_list("pk", flat=True))
        deleted = _delete_items(row, ids, now, is_class_deleted=True)
        row.delete()
        return deleted


def _lock(user_id: int, task_class_id: int) -> TaskClass | None:
    own = TaskClass.objects.filter(pk=task_class_id, user_id=user_id)
    return (own.select_for_update() if connection.features.has_select_for_update else own).first()


def _assign(row: TaskClass, draft: ClassDraft, now: datetime) -> None:
    for name in _COLUMNS:
        setattr(row, name, getattr(draft, name))
    row.excluded_slots = sorted(set(draft.excluded_slots))
    row.excluded_days_of_week = sorted(set(draft.excluded_days_of_week))
    row.updated_at = now


def _in_order(items: Sequence[ItemDraft]) -> list[ItemDraft]:
    return sorted(items, key=lambda item: item.order)


def _delete_items(row: TaskClass, ids: Sequence[int], now: datetime, *, is_class_deleted: bool = False) -> DeletedItems:
    TaskItem.objects.filter(pk__in=ids).delete()
    if ids or is_class_deleted:
        event = TaskClassItemsDeleted(
            user_id=row.user_id,
            task_class_id=row.pk,
            task_item_ids=list(ids),
            is_class_deleted=is_class_deleted,
            occurred_at=now.isoformat(),
        )
        append_event(event=event, key=f"task_class:{row.pk}", now=now)
    return DeletedItems(task_class_id=row.pk, task_item_ids=tuple(ids))


def _place(row: TaskClass, kept: Sequence[TaskItem], drafts: Sequence[ItemDraft], now: datetime) -> None:
    """Give the class exactly the drafts, numbered as they come."""
    known = {item.pk: item for item in kept}
    changed, added, moved = [], [], []
    for number, draft in enumerate(drafts, start=1):
        if draft.id is None:
            added.append(_new_item(row, number, draft, now))
            continue
        item = known.get(draft.id)
        if item is None:
            raise ItemNotInClass(fields={"items": ItemNotInClass.message})
        if item.order != number:
            moved.append(item.pk)
        if (item.order, item.content) != (number, draft.content):
            item.order, item.content, item.updated_at = number, draft.content, now
            changed.append(item)
    if moved:
        TaskItem.objects.filter(pk__in=moved).update(order=F("order") + _ASIDE)
    TaskItem.objects.bulk_update(changed, ["order", "content", "updated_at"], batch_size=100)
    TaskItem.objects.bulk_create(added)


def _new_item(row: TaskClass, number: int, draft: ItemDraft, now: datetime) -> TaskItem:
    return TaskItem(
        category_id=row.pk,
        order=number,
        content=draft.content,
        embedded_time=draft.embedded_time,
        status=ItemStatus.UNSCHEDULED if draft.embedded_time is None else ItemStatus.APPLIED,
        created_at=now,
        updated_at=now,
    )
