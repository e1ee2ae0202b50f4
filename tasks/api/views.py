"""The task routes: translate in, one domain call, translate out."""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from smartflow.accounts.api.authentication import signed_in_user
from smartflow.api.idempotency import IdempotentView
from smartflow.api.schema_links import Link, leads_to
from smartflow.api.serializers import StrictSerializer
from smartflow.kernel.clock import utc_now
from tasks import operations, queries
from tasks.api import serializers as shapes
from tasks.contracts import NewTask, Page, Sort, TaskChange, TaskFilter, TaskView

NEXT_CURSOR = "X-Next-Cursor"
_ID = {"task_id": "$response.body#/data/id"}
# The wire's name of a column, where they differ.
_COLUMNS = {"priority_group": "priority"}


class TaskCreateView(IdempotentView):
    """Adding a task."""

    error_codes = ("40004", "40005", "40006", "40018")

    @extend_schema(request=shapes.TaskCreate, responses={200: shapes.TaskShape}, tags=["task"])
    @leads_to(
        Link("task_update_update", body=_ID),
        Link("task_complete_update", body=_ID),
        Link("task_undo_complete_update", body=_ID),
        Link("task_batch_status_create", body={"ids": ["$response.body#/data/id"]}),
        Link("task_delete_destroy", parameters=_ID),
        Link("task_restore_create", body=_ID),
    )
    def post(self, request: Request) -> Response:
        """Add a task."""
        values = _to_columns(_checked(shapes.TaskCreate, request, request.data))
        task = operations.create_task(user_id=signed_in_user(request).user_id, task=NewTask(**values), now=utc_now())
        return _answer(request, task)


class TaskListView(APIView):
    """The user's tasks."""

    error_codes = ("10001", "40005", "40006")

    @extend_schema(
        parameters=[
            shapes.TaskListQuery,
            OpenApiParameter(
                NEXT_CURSOR, str, OpenApiParameter.HEADER, response=[200], description="Where the next page begins."
            ),
        ],
        responses={200: shapes.TaskShape(many=True)},
        tags=["task"],
    )
    def get(self, request: Request) -> Response:
        """List all tasks, the oldest first; with any parameter one page of what it asks for."""
        user_id, zone = signed_in_user(request).user_id, _zone(request)
        if not request.query_params:
            tasks = operations.show_tasks(user_id=user_id, now=utc_now())
            return Response([shapes.task_body(task, zone) for task in tasks])
        query = _checked(shapes.TaskListQuery, request, request.query_params.dict())
        page = Page(sort=Sort(query.pop("sort")), limit=query.pop("limit"), cursor=query.pop("cursor", ""))
        wanted = TaskFilter(is_completed=query.pop("completed"), **query)
        found = operations.show_page(user_id=user_id, wanted=wanted, page=page, now=utc_now())
        headers = {NEXT_CURSOR: found.next_cursor} if found.next_cursor else None
        return Response([shapes.task_body(task, zone) for task in found.tasks], headers=headers)


class TaskBatchStatusView(APIView):
    """The state of tasks that an old page shows."""

    throttle_group = "read"
    error_codes = ("40004", "40005", "40006")

    @extend_schema(request=shapes.BatchStatusRequest, responses={200: shapes.BatchStatusShape}, tags=["task"])
    def post(self, request: Request) -> Response:
        """Tell which of these tasks are completed; changes nothing."""
        ids = _checked(shapes.BatchStatusRequest, request, request.data)["ids"]
        states = queries.list_completion(user_id=signed_in_user(request).user_id, task_ids=ids)
        return Response({"items": [{"id": task_id, "is_completed": done} for task_id, done in states]})


class TaskUpdateView(IdempotentView):
    """Changing a task."""

    idempotent_methods = ("put",)
    error_codes = ("40004", "40005", "40006", "40018", "40050", "40063")

    @extend_schema(request=shapes.TaskUpdate, responses={200: shapes.TaskShape}, tags=["task"])
    def put(self, request: Request) -> Response:
        """Change what is given, clear what is null, leave the rest."""
        values = _to_columns(_checked(shapes.TaskUpdate, request, request.data))
        task = operations.update_task(
            user_id=signed_in_user(request).user_id,
            task_id=values.pop("task_id"),
            change=TaskChange(**values),
            now=utc_now(),
        )
        return _answer(request, task)


class TaskCompleteView(IdempotentView):
    """Ticking a task off."""

    idempotent_methods = ("put",)
    error_codes = ("40004", "40005", "40050")

    @extend_schema(request=shapes.OneTask, responses={200: shapes.CompletedShape}, tags=["task"])
    def put(self, request: Request) -> Response:
        """Complete a task; completing a completed one changes nothing."""
        done = operations.complete_task(
            user_id=signed_in_user(request).user_id, **_checked(shapes.OneTask, request, request.data), now=utc_now()
        )
        return Response(
            {
                "task_id": done.task_id,
                "is_completed": True,
                "already_completed": done.was_completed,
                "status": "completed",
                "completed_at": done.completed_at.astimezone(_zone(request)).isoformat(),
            }
        )


class TaskUndoCompleteView(IdempotentView):
    """Taking a completion back."""

    idempotent_methods = ("put",)
    error_codes = ("40004", "40005", "40050", "40052")

    @extend_schema(request=shapes.OneTask, responses={200: shapes.UncompletedShape}, tags=["task"])
    def put(self, request: Request) -> Response:
        """Open a completed task again."""
        values = _checked(shapes.OneTask, request, request.data)
        operations.undo_complete_task(user_id=signed_in_user(request).user_id, **values, now=utc_now())
        return Response({**values, "is_completed": False, "status": "uncompleted"})


class TaskDeleteView(IdempotentView):
    """Deleting a task."""

    idempotent_methods = ("delete",)
    error_codes = ("10003", "40004", "40005")

    @extend_schema(request=None, parameters=[shapes.OneTask], responses={200: shapes.DeletedShape}, tags=["task"])
    @leads_to(Link("task_restore_create", body={"task_id": "$response.body#/data/task_id"}))
    def delete(self, request: Request) -> Response:
        """Delete a task; for 30 days it can be restored. The id may stand in a JSON body instead."""
        values = _checked(shapes.OneTask, request, request.data or request.query_params.dict())
        operations.delete_task(user_id=signed_in_user(request).user_id, **values, now=utc_now())
        return Response(values)


class TaskRestoreView(IdempotentView):
    """Bringing a deleted task back."""

    error_codes = ("40004", "40005", "40050")

    @extend_schema(request=shapes.OneTask, responses={200: shapes.TaskShape}, tags=["task"])
    def post(self, request: Request) -> Response:
        """Bring a task back as it was, up to 30 days after it was deleted."""
        values = _checked(shapes.OneTask, request, request.data)
        return _answer(
            request, operations.restore_task(user_id=signed_in_user(request).user_id, **values, now=utc_now())
        )


def _zone(request: Request) -> ZoneInfo:
    return ZoneInfo(signed_in_user(request).time_zone)


def _answer(request: Request, task: TaskView) -> Response:
    return Response(shapes.task_body(task, _zone(request)))


def _to_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_COLUMNS.get(name, name): value for name, value in values.items()}


def _checked(shape: type[StrictSerializer], request: Request, values: Any) -> dict[str, Any]:
    serializer = shape(data=values, context={"zone": _zone(request)})
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
