"""Shapes of requests and answers of the task routes."""

from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from smartflow.api.fields import RowId, UserMoment
from smartflow.api.serializers import StrictSerializer
from tasks.contracts import Sort, TaskView

MAX_PAGE_SIZE = 200
MOST_IDS = 100
_COMPLETE, _INCOMPLETE = "completed", "incomplete"


@extend_schema_field({"type": "integer", "minimum": 1, "maximum": 4})
class Quadrant(serializers.IntegerField):
    """A task's priority; the operations refuse others, with a code of their own."""


class TaskFields(StrictSerializer):
    """What a task is made of, as it is written."""

    title = serializers.CharField(max_length=255)
    priority_group = Quadrant(
        help_text="1 important and urgent, 2 important, 3 easy and unimportant, 4 hard and unimportant."
    )
    estimated_sections = serializers.IntegerField(
        required=False, allow_null=True, help_text="Kept within 1 to 4; null and less count as 1."
    )
    deadline_at = UserMoment(
        required=False, allow_null=True, help_text="ISO 8601; without a zone in that of the user. null: none."
    )
    urgency_threshold_at = UserMoment(
        required=False,
        allow_null=True,
        help_text=(
            "When the task moves from 2 to 1, or from 4 to 3, by itself; null: never. A new task of priority 2 with a "
            "deadline and without this field gets the moment 24 hours before the deadline."
        ),
    )


class TaskCreate(TaskFields):
    """A task to be added."""


class TaskUpdate(TaskFields):
    """What to change of a task: what is left out stays, null clears it."""

    task_id = RowId()
    title = serializers.CharField(max_length=255, required=False)
    priority_group = Quadrant(required=False, help_text="Clears a threshold that has passed, unless one is given too.")


class OneTask(StrictSerializer):
    """The body of a route about one task."""

    task_id = RowId()


class TaskListQuery(StrictSerializer):
    """The query of the list; none of it gives the whole list."""

    quadrant = serializers.ChoiceField(choices=[1, 2, 3, 4], required=False)
    completed = serializers.BooleanField(required=False, allow_null=True, default=None)
    keyword = serializers.CharField(max_length=255, required=False, help_text="A part of the title, in any case.")
    deadline_after = UserMoment(required=False, help_text="This moment or later.")
    deadline_before = UserMoment(required=False, help_text="Earlier than this moment.")
    sort = serializers.ChoiceField(choices=list(Sort), default=Sort.CREATED)
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=100)
    cursor = serializers.CharField(
        max_length=100, required=False, help_text="The answer's header X-Next-Cursor; absent on the last page."
    )

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse a window that nothing can be in."""
        after, before = values.get("deadline_after"), values.get("deadline_before")
        if after is not None and before is not None and after >= before:
            text = gettext("The window is empty: give a moment later than deadline_after.")
            raise serializers.ValidationError({"deadline_before": text})
        return values


class BatchStatusRequest(StrictSerializer):
    """Which tasks to look up."""

    ids = serializers.ListField(child=RowId(), allow_empty=False, max_length=MOST_IDS)


class TaskShape(serializers.Serializer[Any]):
    """One task as it is now; `priority_group` is derived: past its threshold a task shows as urgent."""

    id = serializers.IntegerField()
    user_id = serializers.IntegerField()
    title = serializers.CharField()
    priority_group = serializers.IntegerField(min_value=1, max_value=4)
    estimated_sections = serializers.IntegerField(min_value=1, max_value=4)
    status = serializers.CharField(help_text="incomplete or completed")
    is_completed = serializers.BooleanField()
    deadline = serializers.CharField(help_text="YYYY-MM-DD HH:MM:SS in the user's zone; empty without one.")
    deadline_at = serializers.DateTimeField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    urgency_threshold_at = serializers.DateTimeField(required=False, help_text="Left out without one.")


class CompletedShape(serializers.Serializer[Any]):
    """A completion; the same for everybody who asks, but for who was first."""

    task_id = serializers.IntegerField()
    is_completed = serializers.BooleanField()
    already_completed = serializers.BooleanField()
    status = serializers.CharField(help_text="completed")
    completed_at = serializers.DateTimeField()


class UncompletedShape(serializers.Serializer[Any]):
    """A completion that was taken back."""

    task_id = serializers.IntegerField()
    is_completed = serializers.BooleanField()
    status = serializers.CharField(help_text="uncompleted")


class DeletedShape(serializers.Serializer[Any]):
    """A task that was deleted."""

    task_id = serializers.IntegerField()


class StatusShape(serializers.Serializer[Any]):
    """Whether one task is completed."""

    id = serializers.IntegerField()
    is_completed = serializers.BooleanField()


class BatchStatusShape(serializers.Serializer[Any]):
    """The state of tasks, in the order asked for; what is not the user's is left out."""

    items = StatusShape(many=True)


def task_body(task: TaskView, zone: ZoneInfo) -> dict[str, Any]:
    """Return a task in the form of TaskShape; by hand, because a list may hold thousands."""
    row = task.row
    deadline = row.deadline_at.astimezone(zone) if row.deadline_at else None
    body = {
        "id": row.id,
        "user_id": row.user_id,
        "title": row.title,
        "priority_group": task.priority,
        "estimated_sections": row.estimated_sections,
        "status": _COMPLETE if row.is_completed else _INCOMPLETE,
        "is_completed": row.is_completed,
        "deadline": deadline.isoformat(" ", "seconds")[:19] if deadline else "",
        "deadline_at": deadline.isoformat() if deadline else None,
        "completed_at": row.completed_at.astimezone(zone).isoformat() if row.completed_at else None,
        "created_at": row.created_at.astimezone(zone).isoformat(),
    }
    if row.urgency_threshold_at:
        body["urgency_threshold_at"] = row.urgency_threshold_at.astimezone(zone).isoformat()
    return body
