"""The chat routes that Django serves: translate in, one domain call, translate out. Streams are in run_routes.py."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat import operations, queries
from chat.api import serializers as shapes
from chat.contracts import ChatStatus
from chat.operations import ConversationNotFound, RunNotFound
from smartflow.accounts.api.authentication import signed_in_user
from smartflow.api.envelope import NO_DATA
from smartflow.api.schema import no_data
from smartflow.api.serializers import StrictSerializer
from smartflow.kernel.clock import utc_now


class ConversationMetaView(APIView):
    """One conversation."""

    error_codes = ("40004", "40401")

    @extend_schema(parameters=[shapes.OneConversation], responses={200: shapes.ConversationShape}, tags=["agent"])
    def get(self, request: Request) -> Response:
        """Show a conversation's title, counters and status."""
        query = _checked(shapes.OneConversation, request.query_params.dict())
        view = queries.find_conversation(user_id=signed_in_user(request).user_id, **query)
        if view is None:
            raise ConversationNotFound
        return Response(shapes.ConversationShape(view).data)


class ConversationListView(APIView):
    """The user's conversations."""

    @extend_schema(
        parameters=[shapes.ConversationListQuery], responses={200: shapes.ConversationPageShape}, tags=["agent"]
    )
    def get(self, request: Request) -> Response:
        """List conversations, the latest message first."""
        query = _checked(shapes.ConversationListQuery, request.query_params.dict())
        page = queries.list_conversations(user_id=signed_in_user(request).user_id, **query)
        return Response(shapes.ConversationPageShape(page).data)


class ConversationTimelineView(APIView):
    """What was said in a conversation."""

    error_codes = ("40004", "40401")

    @extend_schema(
        parameters=[shapes.TimelineQuery], responses={200: shapes.TimelineItemShape(many=True)}, tags=["agent"]
    )
    def get(self, request: Request) -> Response:
        """Show the newest entries, oldest first; `before_seq` pages back, `after_seq` forth."""
        query = _checked(shapes.TimelineQuery, request.query_params.dict())
        items = queries.list_timeline(user_id=signed_in_user(request).user_id, **query)
        if items is None:
            raise ConversationNotFound
        return Response(shapes.show_timeline(items))


class ContextStatsView(APIView):
    """How full the model's memory of a conversation is."""

    error_codes = ("40004", "40401")

    @extend_schema(
        parameters=[shapes.OneConversation], responses={200: shapes.ContextStatsShape(allow_null=True)}, tags=["agent"]
    )
    def get(self, request: Request) -> Response:
        """Show the estimated tokens of what the model was last sent, by part; null before the first call."""
        query = _checked(shapes.OneConversation, request.query_params.dict())
        stats = queries.find_context_stats(user_id=signed_in_user(request).user_id, **query)
        return Response(shapes.ContextStatsShape(stats).data if stats else None)


class VariantsView(APIView):
    """The answers to one question."""

    error_codes = ("40402",)

    @extend_schema(responses={200: shapes.VariantShape(many=True)}, tags=["agent"])
    def get(self, request: Request, run_id: UUID) -> Response:
        """List all answers to the question that this one answers, oldest first."""
        variants = queries.list_variants(user_id=signed_in_user(request).user_id, run_id=str(run_id))
        if variants is None:
            raise RunNotFound
        return Response(shapes.VariantShape(variants, many=True).data)


class SelectVariantView(APIView):
    """Which of the answers to one question counts."""

    error_codes = ("40402", "40910", "40912", "40914")

    @extend_schema(request=None, responses={200: no_data()}, tags=["agent"])
    def post(self, request: Request, run_id: UUID) -> Response:
        """Let this answer be the one the assistant remembers; of the last question only."""
        operations.select_variant(user_id=signed_in_user(request).user_id, run_id=str(run_id), now=utc_now())
        return Response(NO_DATA)


class ConversationView(APIView):
    """Changing one conversation."""

    error_codes = ("40004", "40401")

    @extend_schema(request=shapes.ConversationChange, responses={200: no_data()}, tags=["agent"])
    def patch(self, request: Request, conversation_id: UUID) -> Response:
        """Rename a conversation, archive it or bring it back."""
        values = _checked(shapes.ConversationChange, request.data)
        status = values.get("status")
        operations.change_conversation(
            user_id=signed_in_user(request).user_id,
            conversation_id=str(conversation_id),
            title=values.get("title"),
            status=ChatStatus(status) if status else None,
        )
        return Response(NO_DATA)

    @extend_schema(request=None, responses={200: no_data()}, tags=["agent"])
    def delete(self, request: Request, conversation_id: UUID) -> Response:
        """Delete a conversation."""
        operations.delete_conversation(
            user_id=signed_in_user(request).user_id, conversation_id=str(conversation_id), now=utc_now()
        )
        return Response(NO_DATA)


def _checked(shape: type[StrictSerializer], values: Any) -> dict[str, Any]:
    serializer = shape(data=values)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
