"""The task-class routes: translate in, one domain call, translate out."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from smartflow.accounts.api.authentication import signed_in_user
from smartflow.api.idempotency import IdempotentView
from smartflow.api.schema_links import Link, leads_to
from smartflow.api.serializers import StrictSerializer
from smartflow.kernel.clock import utc_now
from tasks import operations, queries
from tasks.api import class_serializers as shapes

_ID = {"task_class_id": "$response.body#/data/id"}
_LINKS = leads_to(
    Link("task_class_get_retrieve", parameters=_ID),
    Link("task_class_update_update", body=_ID),
    Link("task_class_delete_item_destroy", parameters={"task_item_id": "$response.body#/data/items/0/id"}),
    Link("task_class_delete_class_destroy", parameters=_ID),
)
_FIELD_CODES = ("40004", "40005", "40006", "40044", "40045")


class ClassAddView(IdempotentView):
    """Adding a task class."""

    error_codes = _FIELD_CODES

    @extend_schema(request=shapes.ClassCreate, responses={200: shapes.ClassShape}, tags=["task-class"])
    @_LINKS
    def post(self, request: Request) -> Response:
        """Add a task class with its items; the automatic mode needs both dates."""
        draft = shapes.draft_of(_checked(shapes.ClassCreate, request.data))
        added = operations.add_class(user_id=signed_in_user(request).user_id, draft=draft, now=utc_now())
        return Response(shapes.class_body(added))


class ClassListView(APIView):
    """The user's task classes."""

    @extend_schema(responses={200: shapes.ClassListShape}, tags=["task-class"])
    def get(self, request: Request) -> Response:
        """List the task classes without their items, the newest first."""
        classes = queries.list_classes(user_id=signed_in_user(request).user_id)
        return Response(shapes.ClassListShape({"task_classes": classes}).data)


class ClassView(APIView):
    """One task class."""

    error_codes = ("40004", "40005", "40020")

    @extend_schema(parameters=[shapes.OneClass], responses={200: shapes.ClassShape}, tags=["task-class"])
    def get(self, request: Request) -> Response:
        """Show a task class with its items in order."""
        query = _checked(shapes.OneClass, request.query_params.dict())
        return Response(shapes.class_body(queries.get_class(user_id=signed_in_user(request).user_id, **query)))


class ClassUpdateView(IdempotentView):
    """Changing a task class."""

    idempotent_methods = ("put",)
    error_codes = (*_FIELD_CODES, "40020", "40048")

    @extend_schema(request=shapes.ClassUpdate, responses={200: shapes.ClassShape}, tags=["task-class"])
    def put(self, request: Request) -> Response:
        """Make a task class what is sent: items with an id keep it, others are added, those left out are deleted."""
        values = _checked(shapes.ClassUpdate, request.data)
        changed = operations.change_class(
            user_id=signed_in_user(request).user_id,
            task_class_id=values["task_class_id"],
            draft=shapes.draft_of(values),
            now=utc_now(),
        )
        return Response(shapes.class_body(changed))


class ItemDeleteView(IdempotentView):
    """Deleting an item."""

    idempotent_methods = ("delete",)
    error_codes = ("40004", "40005", "40036")

    @extend_schema(
        request=None, parameters=[shapes.OneItem], responses={200: shapes.DeletedItemShape}, tags=["task-class"]
    )
    def delete(self, request: Request) -> Response:
        """Delete an item; those behind it move up."""
        values = _checked(shapes.OneItem, request.query_params.dict())
        operations.delete_item(user_id=signed_in_user(request).user_id, **values, now=utc_now())
        return Response(values)


class ClassDeleteView(IdempotentView):
    """Deleting a task class."""

    idempotent_methods = ("delete",)
    error_codes = ("40004", "40005", "40040")

    @extend_schema(
        request=None, parameters=[shapes.OneClass], responses={200: shapes.DeletedClassShape}, tags=["task-class"]
    )
    def delete(self, request: Request) -> Response:
        """Delete a task class with its items."""
        values = _checked(shapes.OneClass, request.query_params.dict())
        operations.delete_class(user_id=signed_in_user(request).user_id, **values, now=utc_now())
        return Response(values)


def _checked(shape: type[StrictSerializer], values: Any) -> dict[str, Any]:
    serializer = shape(data=values)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
