"""Events of tasks and task classes.

The facts tell what a row looks like after the change and which columns changed; whoever follows needs no second read.
Times are ISO 8601 in UTC.
"""

from dataclasses import dataclass

from smartflow.events.base import Event


@dataclass(frozen=True, kw_only=True)
class TaskFact(Event):
    """
    Something happened to a task. `changed` names the columns that differ from before, sorted.

    A task that is deleted has `is_deleted`; a restored one comes as changed, with `deleted_at` among `changed`.
    """

    needs_handler = False

    user_id: int
    task_id: int
    title: str
    priority: int
    estimated_sections: int
    is_completed: bool
    is_deleted: bool
    deadline_at: str | None
    urgency_threshold_at: str | None
    changed: list[str]
    occurred_at: str


@dataclass(frozen=True, kw_only=True)
class TaskItemCreated(TaskFact):
    """A task was added."""

    event_type = "task.item.created"
    event_version = 1


@dataclass(frozen=True, kw_only=True)
class TaskItemChanged(TaskFact):
    """A task was edited, promoted, reopened or restored."""

    event_type = "task.item.changed"
    event_version = 1


@dataclass(frozen=True, kw_only=True)
class TaskItemCompleted(TaskFact):
    """A task was ticked off."""

    event_type = "task.item.completed"
    event_version = 1


@dataclass(frozen=True, kw_only=True)
class TaskItemDeleted(TaskFact):
    """A task was deleted; it can come back for 30 days."""

    event_type = "task.item.deleted"
    event_version = 1


@dataclass(frozen=True, kw_only=True)
class TaskItemDueSoon(TaskFact):
    """An open task's deadline is near: told once for each deadline, before it has passed. `changed` is empty."""

    event_type = "task.item.due_soon"
    event_version = 1


@dataclass(frozen=True, kw_only=True)
class TaskUrgencyPromoteRequested(Event):
    """
    Tasks were seen past their threshold: write the priority that readers see already.

    Each is a request about the present, so that a dead one holds nobody up.
    """

    event_type = "task.urgency.promote.requested"
    event_version = 1
    blocks_key_when_dead = False

    user_id: int
    task_ids: list[int]
    triggered_at: str


@dataclass(frozen=True, kw_only=True)
class TaskClassItemsDeleted(Event):
    """Items of a task class were deleted, with or without the class: what was arranged for them must go too."""

    event_type = "task.class_items.deleted"
    event_version = 1
    needs_handler = False

    user_id: int
    task_class_id: int
    task_item_ids: list[int]
    is_class_deleted: bool
    occurred_at: str
