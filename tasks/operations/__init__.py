"""Every write of tasks and task classes.

Whoever writes a user's tasks or task classes takes their revision first and holds it to the commit: that makes the
order of events the order of commits, and leaves no reader with an old copy.
"""

from tasks.operations.class_rules import AutoNeedsDates, ClassFieldInvalid, ClassFieldMissing, DatesReversed
from tasks.operations.classes import (
    ItemNotInClass,
    TaskClassUnknown,
    TaskItemNotFound,
    add_class,
    change_class,
    delete_class,
    delete_item,
)
from tasks.operations.completion import TaskNotCompleted, complete_task, undo_complete_task
from tasks.operations.deletion import TaskAlreadyDeleted, delete_task, prune_deleted_tasks, restore_task
from tasks.operations.due_soon import tell_due_soon
from tasks.operations.edits import NothingToChange, PriorityInvalid, TaskTitleInvalid, create_task, update_task
from tasks.operations.promotion import promote_due_tasks, promote_urgent_tasks, request_promotion
from tasks.operations.reading import show_page, show_tasks
from tasks.queries import TaskClassNotFound, TaskNotFound

__all__ = [
    "AutoNeedsDates",
    "ClassFieldInvalid",
    "ClassFieldMissing",
    "DatesReversed",
    "ItemNotInClass",
    "NothingToChange",
    "PriorityInvalid",
    "TaskAlreadyDeleted",
    "TaskClassNotFound",
    "TaskClassUnknown",
    "TaskItemNotFound",
    "TaskNotCompleted",
    "TaskNotFound",
    "TaskTitleInvalid",
    "add_class",
    "change_class",
    "complete_task",
    "create_task",
    "delete_class",
    "delete_item",
    "delete_task",
    "promote_due_tasks",
    "promote_urgent_tasks",
    "prune_deleted_tasks",
    "request_promotion",
    "restore_task",
    "show_page",
    "show_tasks",
    "tell_due_soon",
    "undo_complete_task",
    "update_task",
]
