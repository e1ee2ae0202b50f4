"""The memory routes: translate in, one domain call, translate out."""

from typing import Any
from zoneinfo import ZoneInfo

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from chat import memory_queries, operations
from chat.api import memory_serializers as shapes
from chat.memory_contracts import (
    Author,
    AuthorKind,
    MemoryChange,
    MemoryFilter,
    MemoryView,
    NewMemory,
    SwitchesChange,
)
from smartflow.accounts.api.authentication import signed_in_user
from smartflow.api.idempotency import IdempotentView
from smartflow.api.schema import documents_errors
from smartflow.api.serializers import StrictSerializer
from smartflow.kernel.clock import utc_now

NEXT_CURSOR = "X-Next-Cursor"
_FIELD_CODES = ("40004", "40005", "40006", "40056", "40057", "40401")
_ITEM_ID = OpenApiParameter("item_id", {"type": "integer", "minimum": 1}, OpenApiParameter.PATH)
_ADDED = OpenApiExample(
    "a preference",
    {"memory_type": "preference", "title": "Mornings", "content": "No lessons before ten.", "importance": 0.8},
    request_only=True,
)
_CHANGED = OpenApiExample(
    "another content, and for good",
    {"content": "No lessons before eleven.", "ttl_at": None, "reason": "The summer term begins later."},
    request_only=True,
)
_TURNED = OpenApiExample("one switch", {"implicit_memory_enabled": False}, request_only=True)


class MemoryItemsView(IdempotentView):
    """What the assistant remembers of the user."""

    @extend_schema(
        parameters=[
            shapes.MemoryListQuery,
            OpenApiParameter(
                NEXT_CURSOR, str, OpenApiParameter.HEADER, response=[200], description="Where the next page begins."
            ),
        ],
        responses={200: shapes.MemoryShape(many=True)},
        tags=["memory"],
    )
    @documents_errors("40005", "40006", "40056")
    def get(self, request: Request) -> Response:
        """List items, the newest first, whatever the switches say and whether or not they are past their time."""
        query = _checked(shapes.MemoryListQuery, request, request.query_params.dict())
        limit, cursor = query.pop("limit"), query.pop("cursor", "")
        page = memory_queries.list_memory_items(
            user_id=signed_in_user(request).user_id, wanted=MemoryFilter(**query), limit=limit, cursor=cursor
        )
        zone = _zone(request)
        headers = {NEXT_CURSOR: page.next_cursor} if page.next_cursor else None
        return Response([shapes.memory_body(item, zone) for item in page.items], headers=headers)

    @extend_schema(request=shapes.MemoryCreate, responses={200: shapes.MemoryShape}, examples=[_ADDED], tags=["memory"])
    @documents_errors(*_FIELD_CODES)
    def post(self, request: Request) -> Response:
        """Add an item by hand."""
        values = _checked(shapes.MemoryCreate, request, request.data)
        by = _author(request, values.pop("reason", ""))
        item = operations.create_memory_item(
            user_id=signed_in_user(request).user_id, item=NewMemory(**values), by=by, now=utc_now()
        )
        return _answer(request, item)


class MemoryItemView(IdempotentView):
    """One item."""

    idempotent_methods = ("patch", "delete")

    @extend_schema(parameters=[_ITEM_ID], responses={200: shapes.MemoryShape}, tags=["memory"])
    @documents_errors("40005", "40055")
    def get(self, request: Request, item_id: str) -> Response:
        """Show an item, also a deleted one."""
        item = memory_queries.get_memory_item(user_id=signed_in_user(request).user_id, item_id=_id_of(request, item_id))
        return _answer(request, item)

    @extend_schema(
        parameters=[_ITEM_ID],
        request=shapes.MemoryUpdate,
        responses={200: shapes.MemoryShape},
        examples=[_CHANGED],
        tags=["memory"],
    )
    @documents_errors(*_FIELD_CODES, "40055", "40063", "40900")
    def patch(self, request: Request, item_id: str) -> Response:
        """Change what is given, clear what is null, leave the rest; a deleted item has to be restored first."""
        values = _checked(shapes.MemoryUpdate, request, request.data)
        by = _author(request, values.pop("reason", ""))
        item = operations.change_memory_item(
            user_id=signed_in_user(request).user_id,
            item_id=_id_of(request, item_id),
            change=MemoryChange(**values),
            by=by,
            now=utc_now(),
        )
        return _answer(request, item)

    @extend_schema(
        parameters=[_ITEM_ID, shapes.Reason], request=None, responses={200: shapes.MemoryShape}, tags=["memory"]
    )
    @documents_errors("40005", "40006", "40055")
    def delete(self, request: Request, item_id: str) -> Response:
        """Delete an item; it can be restored. The reason may stand in a JSON body instead. Repeated: no effect."""
        values = _checked(shapes.Reason, request, request.data or request.query_params.dict())
        by = _author(request, values.get("reason", ""))
        item = operations.delete_memory_item(
            user_id=signed_in_user(request).user_id, item_id=_id_of(request, item_id), by=by, now=utc_now()
        )
        return _answer(request, item)


class MemoryRestoreView(IdempotentView):
    """Bringing an item back."""

    @extend_schema(parameters=[_ITEM_ID], request=shapes.Reason, responses={200: shapes.MemoryShape}, tags=["memory"])
    @documents_errors("40005", "40006", "40055")
    def post(self, request: Request, item_id: str) -> Response:
        """Make an archived or deleted item active again. Repeated: no effect."""
        values = _checked(shapes.Reason, request, request.data)
        by = _author(request, values.get("reason", ""))
        item = operations.restore_memory_item(
            user_id=signed_in_user(request).user_id, item_id=_id_of(request, item_id), by=by, now=utc_now()
        )
        return _answer(request, item)


class MemorySettingsView(IdempotentView):
    """What the assistant may remember by itself."""

    idempotent_methods = ("patch",)

    @extend_schema(responses={200: shapes.SwitchesShape}, tags=["memory"])
    @documents_errors()
    def get(self, request: Request) -> Response:
        """Show the three switches."""
        switches = memory_queries.get_memory_switches(user_id=signed_in_user(request).user_id)
        return Response(shapes.SwitchesShape(switches).data)

    @extend_schema(
        request=shapes.SwitchesUpdate, responses={200: shapes.SwitchesShape}, examples=[_TURNED], tags=["memory"]
    )
    @documents_errors("40004", "40005", "40006", "40063")
    def patch(self, request: Request) -> Response:
        """Turn the switches that are given, leave the rest."""
        values = _checked(shapes.SwitchesUpdate, request, request.data)
        by = _author(request, values.pop("reason", ""))
        switches = operations.change_memory_switches(
            user_id=signed_in_user(request).user_id, change=SwitchesChange(**values), by=by, now=utc_now()
        )
        return Response(shapes.SwitchesShape(switches).data)


def _zone(request: Request) -> ZoneInfo:
    return ZoneInfo(signed_in_user(request).time_zone)


def _author(request: Request, reason: str) -> Author:
    return Author(kind=AuthorKind.USER, id=signed_in_user(request).user_id, reason=reason)


def _answer(request: Request, item: MemoryView) -> Response:
    return Response(shapes.memory_body(item, _zone(request)))


def _id_of(request: Request, item_id: str) -> int:
    found: int = _checked(shapes.OneItem, request, {"id": item_id})["id"]
    return found


def _checked(shape: type[StrictSerializer], request: Request, values: Any) -> dict[str, Any]:
    serializer = shape(data=values, context={"zone": _zone(request)})
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
