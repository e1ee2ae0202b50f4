"""What may leave the tasks app: plain values, no Django."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import Any, Final, NamedTuple

# How long a deleted task can be brought back.
UNDO_DAYS = 30


class Quadrant(IntEnum):
    """The four quadrants; a task's priority is the number of its quadrant."""

    URGENT = 1  # important and urgent
    IMPORTANT = 2  # important, not urgent
    SIMPLE = 3  # easy and unimportant
    COMPLEX = 4  # hard and unimportant


class Sort(StrEnum):
    """The orders of a list."""

    CREATED = "created"
    NEWEST = "-created"
    DEADLINE = "deadline"  # the nearest first, then those without one


class Unset:
    """The type of UNSET."""

    def __repr__(self) -> str:
        return "UNSET"


# A value that was not given, apart from None, which was given and means nothing.
UNSET: Final = Unset()


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A task to be added. An unset priority or threshold gets the default; a threshold of None never shifts."""

    title: str
    priority: int | None = None
    deadline_at: datetime | None = None
    urgency_threshold_at: datetime | Unset | None = UNSET
    estimated_sections: int | None = None


@dataclass(frozen=True, kw_only=True)
class TaskChange:
    """What to change of a task. Unset leaves a value as it is, None clears it."""

    title: str | Unset = UNSET
    priority: int | Unset = UNSET
    deadline_at: datetime | Unset | None = UNSET
    urgency_threshold_at: datetime | Unset | None = UNSET
    estimated_sections: int | Unset | None = UNSET

    def values(self) -> dict[str, Any]:
        """Return what was given, by the column's name."""
        return {name: value for name, value in vars(self).items() if value is not UNSET}


class TaskRow(NamedTuple):
    """
    One task as it is stored; `priority` is the stored one. Fields in the order in which they are read.

    A tuple as TaskView is, because a list holds thousands: a frozen dataclass takes five times as long to make.
    """

    id: int
    user_id: int
    title: str
    priority: int
    estimated_sections: int
    is_completed: bool
    deadline_at: datetime | None
    urgency_threshold_at: datetime | None
    completed_at: datetime | None
    created_at: datetime


class TaskView(NamedTuple):
    """One task as its owner sees it now: the row, and the quadrant in which it stands."""

    row: TaskRow
    priority: int


@dataclass(frozen=True, kw_only=True)
class TaskFilter:
    """What of a user's tasks to show; the window is half-open: [after, before)."""

    quadrant: int | None = None
    is_completed: bool | None = None
    keyword: str = ""
    deadline_after: datetime | None = None
    deadline_before: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """Which part of a list to show: an order, a length, and what the last page said to go on with."""

    sort: Sort = Sort.CREATED
    limit: int
    cursor: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskPage:
    """One page of tasks; `next_cursor` is "" on the last one."""

    tasks: Sequence[TaskView]
    next_cursor: str = ""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """How a completion ended; of two at once one finds the other's."""

    task_id: int
    completed_at: datetime
    was_completed: bool


# --- task classes -----------------------------------------------------------------------------------------------------


class ClassMode(StrEnum):
    """Who arranges a class's items."""

    AUTO = "auto"
    MANUAL = "manual"


class Strategy(StrEnum):
    """How a planner spreads a class's items over its window."""

    STEADY = "steady"
    RAPID = "rapid"


class SubjectType(StrEnum):
    """What kind of work a class is."""

    QUANTITATIVE = "quantitative"
    MEMORY = "memory"
    READING = "reading"
    MIXED = "mixed"


class Level(StrEnum):
    """How hard, or how intense."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class ItemStatus(IntEnum):
    """Whether an item stands in the timetable."""

    UNSCHEDULED = 1
    APPLIED = 2


@dataclass(frozen=True, kw_only=True)
class ItemDraft:
    """An item as it shall be; `id` names the one that it changes, None adds one."""

    order: int
    content: str
    embedded_time: dict[str, int] | None = None
    id: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClassDraft:
    """A task class as it shall be, with all of its items."""

    name: str
    mode: ClassMode
    start_date: date | None
    end_date: date | None
    subject_type: str
    difficulty_level: str
    cognitive_intensity: str
    total_slots: int
    allow_filler_course: bool
    strategy: Strategy
    excluded_slots: tuple[int, ...]
    excluded_days_of_week: tuple[int, ...]
    items: tuple[ItemDraft, ...]


@dataclass(frozen=True, kw_only=True)
class ItemView:
    """One item of a task class."""

    id: int
    order: int
    content: str
    embedded_time: dict[str, int] | None
    status: int


@dataclass(frozen=True, kw_only=True)
class ClassView:
    """One task class; `items` are in their order, and empty in lists."""

    id: int
    name: str
    mode: str
    start_date: date | None
    end_date: date | None
    subject_type: str
    difficulty_level: str
    cognitive_intensity: str
    total_slots: int
    allow_filler_course: bool
    strategy: str
    excluded_slots: Sequence[int]
    excluded_days_of_week: Sequence[int]
    items: Sequence[ItemView] = ()


@dataclass(frozen=True, kw_only=True)
class DeletedItems:
    """What a deletion took away, for whoever arranged it."""

    task_class_id: int
    task_item_ids: tuple[int, ...]
