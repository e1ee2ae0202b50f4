"""Every read of tasks and task classes. What users ask takes their id: what is another user's does not exist here."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.db.models.lookups import Contains

from smartflow.api.index_hints import read_by
from smartflow.api.rows import read_tuples
from smartflow.kernel.errors import DomainError, Invalid, NotFound
from smartflow.kernel.text import noop as _
from tasks.contracts import ClassView, ItemView, Page, Sort, TaskFilter, TaskPage, TaskRow, TaskView
from tasks.models import Task, TaskClass, TaskItem, TaskRevision
from tasks.revisions import CLASSES, read_through
from tasks.urgency import PROMOTIONS, effective_priority

COLUMNS = (
    *("id", "user_id", "title", "priority", "estimated_sections", "is_completed"),
    *("deadline_at", "urgency_threshold_at", "completed_at", "created_at"),
)
CLASSES_SHOWN = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class TaskNotFound(NotFound):
    """No such task for this user: it never was, was deleted, or is somebody else's."""

    code = "40050"
    message = _("This task does not exist.")


class NoTasks(DomainError):
    """The user has no task at all; an answer rather than a failure."""

    code = "10001"
    message = _("You have no tasks yet.")


class CursorInvalid(Invalid):
    """The cursor was not given out for this list."""

    message = _("The cursor does not fit this list. Leave it out to start at the beginning.")


class TaskClassNotFound(NotFound):
    """No such task class for this user."""

    code = "40020"
    message = _("This task class does not exist.")


def list_tasks(*, user_id: int, now: datetime) -> list[TaskView]:
    """
    Return all of the user's tasks, the oldest first.

    Shape: rows from the copy in the cache where there is one; the quadrant is derived for `now`.
    Raises: NoTasks when there are none.
    """
    own = _own(user_id).order_by("created_at", "id")
    rows = read_through(user_id=user_id, read=lambda: read_tuples(own.values_list(*COLUMNS)))
    if not rows:
        raise NoTasks
    return [_view(TaskRow(*row), now) for row in rows]


def list_page(*, user_id: int, wanted: TaskFilter, page: Page, now: datetime) -> TaskPage:
    """
    Return one page of what is wanted of the user's tasks.

    Plan:   idx_task_user_list by age and idx_task_user_deadline by deadline, from the cursor on; a filter that few
            tasks pass reads on until the page is full.
    Raises: CursorInvalid.
    """
    own = Task.objects.filter(_wanted(wanted, now), user_id=user_id, deleted_at__isnull=True)
    rows = _by_deadline(own, page, wanted) if page.sort == Sort.DEADLINE else _by_age(own, page)
    tasks = [_view(TaskRow(*row), now) for row in rows[: page.limit]]
    has_more = len(rows) > page.limit
    return TaskPage(tasks=tasks, next_cursor=_cursor_after(tasks[-1].row, page.sort) if has_more else "")


def get_task(*, user_id: int, task_id: int, now: datetime) -> TaskView:
    """Return one of the user's tasks. Raises: TaskNotFound."""
    row = _own(user_id).filter(pk=task_id).values_list(*COLUMNS).first()
    if row is None:
        raise TaskNotFound
    return _view(TaskRow(*row), now)


def view_task(*, task: Task, now: datetime) -> TaskView:
    """Return a task that was just read or written as its owner sees it. No query."""
    return _view(TaskRow(*(getattr(task, column) for column in COLUMNS)), now)


def list_completion(*, user_id: int, task_ids: Sequence[int]) -> list[tuple[int, bool]]:
    """Return (id, is completed) in the given order, each once; what is not the user's is left out."""
    states = dict(_own(user_id).filter(pk__in=task_ids).values_list("id", "is_completed"))
    return [(task_id, states[task_id]) for task_id in dict.fromkeys(task_ids) if task_id in states]


def list_users_with_due_tasks(*, now: datetime, limit: int) -> list[int]:
    """Return users with a stored priority that is behind what they see. Plan: idx_task_due alone."""
    users: set[int] = set()
    for priority in PROMOTIONS:
        due = Task.objects.filter(
            deleted_at__isnull=True, is_completed=False, priority=priority, urgency_threshold_at__lte=now
        )
        users |= set(due.order_by("urgency_threshold_at").values_list("user_id", flat=True)[:limit])
    return sorted(users)


def list_due_soon(*, now: datetime, until: datetime, limit: int) -> list[tuple[int, int]]:
    """
    Return (user id, task id) of open tasks with a deadline behind `now` and up to `until` that nobody was told of.

    Order: the nearest deadline first. Plan: a range of idx_task_due_soon, and nothing else.
    """
    near = Task.objects.filter(
        deleted_at__isnull=True,
        is_completed=False,
        due_soon_told_at__isnull=True,
        deadline_at__gt=now,
        deadline_at__lte=until,
    )
    return list(near.order_by("deadline_at", "user_id", "id").values_list("user_id", "id")[:limit])


def count_open(*, user_id: int, quadrant: int, now: datetime, most: int) -> int:
    """Return how many open tasks stand in the quadrant; counts no further than `most`."""
    own = _own(user_id).filter(quadrant_condition(quadrant=quadrant, now=now), is_completed=False)
    return own.order_by()[:most].count()


def find_next_shift(*, user_id: int, now: datetime) -> datetime | None:
    """Return when the next of the user's tasks becomes urgent. Plan: a range of idx_task_user_urgency."""
    coming = _own(user_id).filter(is_completed=False, priority__in=list(PROMOTIONS), urgency_threshold_at__gt=now)
    return coming.order_by("urgency_threshold_at").values_list("urgency_threshold_at", flat=True).first()


def find_revision(*, user_id: int) -> str:
    """Return which state the user's tasks are in; "" before the first change. Read it before the tasks it tells of."""
    return list_revisions(user_ids=[user_id]).get(user_id, "")


def list_revisions(*, user_ids: Collection[int]) -> dict[int, str]:
    """Return the revisions of those users who have one. Plan: one query by primary key."""
    return dict(TaskRevision.objects.filter(pk__in=user_ids).values_list("user_id", "revision"))


def quadrant_condition(*, quadrant: int, now: datetime) -> Q:
    """Return the condition of the tasks that urgency.effective_priority puts into the quadrant."""
    is_due = Q(is_completed=False, urgency_threshold_at__isnull=False, urgency_threshold_at__lte=now)
    if quadrant in PROMOTIONS:
        return Q(priority=quadrant) & ~is_due
    lower = [priority for priority, higher in PROMOTIONS.items() if higher == quadrant]
    return Q(priority=quadrant) | Q(priority__in=lower) & is_due


def list_classes(*, user_id: int) -> list[ClassView]:
    """
    Return the user's task classes without their items, the newest first, at most CLASSES_SHOWN.

    Shape: from the copy in the cache where there is one.
    """
    own = TaskClass.objects.filter(user_id=user_id).order_by("-id")[:CLASSES_SHOWN]
    return list(read_through(user_id=user_id, of=CLASSES, read=lambda: [_class_view(row) for row in own]))


def get_class(*, user_id: int, task_class_id: int) -> ClassView:
    """
    Return one of the user's task classes with its items in order, from the copy in the cache where there is one.

    Raises: TaskClassNotFound.
    """

    def read() -> list[ClassView]:
        return [read_class(user_id=user_id, task_class_id=task_class_id)]

    return read_through(user_id=user_id, of=CLASSES, name=str(task_class_id), read=read)[0]


def read_class(*, user_id: int, task_class_id: int) -> ClassView:
    """Return the same from the database, to whoever has just written it. Raises: TaskClassNotFound."""
    row = TaskClass.objects.filter(pk=task_class_id, user_id=user_id).first()
    if row is None:
        raise TaskClassNotFound
    return _class_view(row, TaskItem.objects.filter(category_id=row.pk).order_by("order"))


def _own(user_id: int) -> QuerySet[Task]:
    return Task.objects.filter(user_id=user_id, deleted_at__isnull=True)


def _wanted(wanted: TaskFilter, now: datetime) -> Q:
    condition = Q()
    if wanted.quadrant is not None:
        condition &= quadrant_condition(quadrant=wanted.quadrant, now=now)
    if wanted.is_completed is not None:
        condition &= Q(is_completed=wanted.is_completed)
    if wanted.keyword:
        # Not `icontains`: on MariaDB it leaves the case to the collation, and ours compares bytes.
        condition &= Q(Contains(Lower("title"), wanted.keyword.lower()))
    if wanted.deadline_after is not None:
        condition &= Q(deadline_at__gte=wanted.deadline_after)
    if wanted.deadline_before is not None:
        condition &= Q(deadline_at__lt=wanted.deadline_before)
    return condition


def _by_age(own: QuerySet[Task], page: Page) -> list[tuple[Any, ...]]:
    micros, last_id = _read_cursor(page) if page.cursor else (None, None)
    is_newest_first = page.sort == Sort.NEWEST
    if page.cursor:
        own = own.filter(_beyond("created_at", micros or 0, last_id, is_descending=is_newest_first))
    order = ("-created_at", "-id") if is_newest_first else ("created_at", "id")
    own = read_by(own, index="idx_task_user_list")
    return read_tuples(own.order_by(*order).values_list(*COLUMNS)[: page.limit + 1])


def _by_deadline(own: QuerySet[Task], page: Page, wanted: TaskFilter) -> list[tuple[Any, ...]]:
    """Read the tasks with a deadline, then, where they end, those without: two ranges of the same index."""
    micros, last_id = _read_cursor(page) if page.cursor else (None, None)
    own = read_by(own, index="idx_task_user_deadline")
    rows: list[tuple[Any, ...]] = []
    if not page.cursor or micros is not None:
        dated = own.filter(deadline_at__isnull=False)
        if micros is not None:
            dated = dated.filter(_beyond("deadline_at", micros, last_id))
        rows = read_tuples(dated.order_by("deadline_at", "id").values_list(*COLUMNS)[: page.limit + 1])
        last_id = None
    has_room = len(rows) <= page.limit and wanted.deadline_after is None and wanted.deadline_before is None
    if has_room:
        undated = own.filter(deadline_at__isnull=True)
        if last_id is not None:
            undated = undated.filter(id__gt=last_id)
        rows += read_tuples(undated.order_by("id").values_list(*COLUMNS)[: page.limit + 1 - len(rows)])
    return rows


def _beyond(column: str, micros: int, last_id: int | None, *, is_descending: bool = False) -> Q:
    """Return the condition of the rows behind a cursor; its first part is where the database enters the index."""
    last, way = _EPOCH + micros * _MICROSECOND, "lt" if is_descending else "gt"
    at_or_behind, behind = Q(**{f"{column}__{way}e": last}), Q(**{f"{column}__{way}": last})
    return at_or_behind & (behind | Q(**{f"id__{way}": last_id}))


def _cursor_after(row: TaskRow, sort: Sort) -> str:
    moment = row.deadline_at if sort == Sort.DEADLINE else row.created_at
    micros = "" if moment is None else (moment - _EPOCH) // _MICROSECOND
    return f"{sort}~{micros}~{row.id}"


def _read_cursor(page: Page) -> tuple[int | None, int | None]:
    """Return the moment and the id of a cursor; no moment for a deadline that is not there."""
    name, *parts = page.cursor.split("~")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    is_whole = len(numbers) == 2 and numbers[1] is not None
    is_whole = is_whole and (numbers[0] is not None or page.sort == Sort.DEADLINE)
    if name != page.sort or not is_whole or any(abs(number or 0) >= 2**57 for number in numbers):
        raise CursorInvalid(fields={"cursor": CursorInvalid.message})
    return numbers[0], numbers[1]


def _view(row: TaskRow, now: datetime) -> TaskView:
    priority = effective_priority(
        priority=row.priority,
        is_completed=row.is_completed,
        urgency_threshold_at=row.urgency_threshold_at,
        now=now,
    )
    return TaskView(row=row, priority=priority)


def _class_view(row: TaskClass, items: Sequence[TaskItem] | QuerySet[TaskItem] = ()) -> ClassView:
    return ClassView(
        id=row.pk,
        name=row.name,
        mode=row.mode,
        start_date=row.start_date,
        end_date=row.end_date,
        subject_type=row.subject_type,
        difficulty_level=row.difficulty_level,
        cognitive_intensity=row.cognitive_intensity,
        total_slots=row.total_slots,
        allow_filler_course=row.allow_filler_course,
        strategy=row.strategy,
        excluded_slots=row.excluded_slots,
        excluded_days_of_week=row.excluded_days_of_week,
        items=[
            ItemView(
                id=item.pk,
                order=item.order,
                content=item.content,
                embedded_time=item.embedded_time,
                status=item.status,
            )
            for item in items
        ],
    )
