"""Taking a change back: what is needed for it travels through the page, signed for the user who made the change."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core import signing

from smartflow.kernel.errors import Invalid
from smartflow.kernel.text import noop as _
from tasks.contracts import TaskChange, TaskRow
from tasks.operations import (
    TaskNotCompleted,
    complete_task,
    restore_task,
    undo_complete_task,
    update_task,
)

_SALT = "smartflow.web.app.undo"
_FIELDS = ("title", "priority", "estimated_sections", "deadline_at", "urgency_threshold_at")
_MOMENTS = frozenset({"deadline_at", "urgency_threshold_at"})


class UndoInvalid(Invalid):
    """The page was not given this for undoing something of the user's."""

    message = _("This can't be undone any more. Reload the page.")


@dataclass(frozen=True, kw_only=True)
class Undo:
    """What takes one change back: `kind` is what was done, `before` the values that it replaced."""

    kind: str
    task_id: int
    before: Mapping[str, Any]

    def sign(self, *, user_id: int) -> str:
        """Return it as the page keeps it."""
        return signing.dumps([user_id, self.kind, self.task_id, dict(self.before)], salt=_SALT, compress=True)


def read_undo(text: str, *, user_id: int) -> Undo:
    """Return what the page kept. Raises: UndoInvalid, also for another user's."""
    try:
        owner_id, kind, task_id, before = signing.loads(text, salt=_SALT)
    except signing.BadSignature as error:
        raise UndoInvalid from error
    if owner_id != user_id:
        raise UndoInvalid
    return Undo(kind=kind, task_id=task_id, before=before)


def undo_of_change(*, before: TaskRow, after: TaskRow) -> Undo | None:
    """Return what restores the values that a change replaced, and no others; None when it replaced none."""
    replaced = {name for name in _FIELDS if getattr(before, name) != getattr(after, name)}
    if "priority" in replaced:
        # Given together: a quadrant that comes back alone would clear a threshold that has passed.
        replaced.add("urgency_threshold_at")
    values = {name: _plain(getattr(before, name)) for name in sorted(replaced)}
    return Undo(kind="change", task_id=before.id, before=values) if values else None


def take_back(undo: Undo, *, user_id: int, now: datetime) -> None:
    """
    Take the change back.

    Transaction: one, the operation's. Twice: no effect. Raises: TaskNotFound when the task is gone meanwhile.
    """
    match undo.kind:
        case "complete":
            try:
                undo_complete_task(user_id=user_id, task_id=undo.task_id, now=now)
            except TaskNotCompleted:
                return
        case "reopen":
            complete_task(user_id=user_id, task_id=undo.task_id, now=now)
        case "delete":
            restore_task(user_id=user_id, task_id=undo.task_id, now=now)
        case _:
            values: dict[str, Any] = {
                name: _moment(value) if name in _MOMENTS else value for name, value in undo.before.items()
            }
            update_task(user_id=user_id, task_id=undo.task_id, change=TaskChange(**values), now=now)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
