"""Documents the routes of live runs. Under ASGI no request comes here: smartflow/asgi.py lets run_routes answer."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api import serializers as shapes
from chat.contracts import RunState
from smartflow.api.idempotency import REPLAYED_HEADER
from smartflow.api.schema import IDEMPOTENCY_KEY
from smartflow.api.schema_links import Link, leads_to
from smartflow.kernel.errors import Unavailable
from smartflow.kernel.text import noop as _

_EVENT = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+-[0-9]+$", "description": "The position behind it."},
        "data": {"type": "string", "minLength": 1, "description": "A chunk as JSON, or `[DONE]`."},
    },
    "required": ["id", "data"],
}
EVENTS = {
    (200, "text/event-stream"): OpenApiResponse(
        response=_EVENT,
        description=(
            "Server-sent events, each with an `id`: OpenAI-style chunks, then `[DONE]`. An event whose `extra.kind` is "
            "`snapshot` replaces all that was shown of the answer. A failure after the start is an event with `error` "
            "before `[DONE]`; what was said is kept. An answer without `[DONE]` was cut off: read on with the last id."
        ),
        examples=[
            OpenApiExample(
                "an answer",
                'id: 1-5\ndata: {"id":"0b6f4f0e-6a8a-4a3e-9f0e-0c7b6d5e4f3a","object":"chat.completion.chunk",'
                '"created":1795284862,"model":"worker","choices":[{"index":0,"delta":{"role":"assistant",'
                '"content":"Hello"},"finish_reason":null}]}\n\nid: 1-6\ndata: [DONE]\n\n',
            )
        ],
    )
}
NEW_RUN = [
    OpenApiParameter(name, str, OpenApiParameter.HEADER, response=[200], description=f"The {what} of this turn.")
    for name, what in (("X-Conversation-ID", "conversation"), ("X-Run-ID", "run"))
]
KEY = [
    OpenApiParameter(
        IDEMPOTENCY_KEY.name,
        IDEMPOTENCY_KEY.type,
        OpenApiParameter.HEADER,
        description="Made up by the client for each new message, such as a UUID. A repetition with the same key is no"
        " second message: it reads the first one's answer from its beginning, with X-Idempotency-Replayed: true.",
        examples=IDEMPOTENCY_KEY.examples,
    ),
    OpenApiParameter(
        REPLAYED_HEADER,
        {"type": "string", "enum": ["true"]},
        OpenApiParameter.HEADER,
        response=[200],
        description="true: the key's message was there before.",
    ),
]
_ID_OF_EVENT = {"type": "string", "pattern": "^[0-9]{1,6}-[0-9]{1,12}$"}
POSITION = [
    OpenApiParameter(
        "after", _ID_OF_EVENT, OpenApiParameter.QUERY, description="The id of the last event that the reader has."
    ),
    OpenApiParameter(
        "Last-Event-ID", _ID_OF_EVENT, OpenApiParameter.HEADER, description="The same; it counts before `after`."
    ),
]
_RUN = {"run_id": "$response.header.X-Run-ID"}
_CONVERSATION = {"conversation_id": "$response.header.X-Conversation-ID"}
_TO_THE_RUN = tuple(
    Link(operation, parameters=_RUN)
    for operation in (
        "agent_runs_events_retrieve",
        "agent_runs_stop_create",
        "agent_runs_regenerate_create",
        "agent_runs_continue_create",
        "agent_runs_variants_list",
        "agent_runs_select_create",
    )
)
_TO_THE_CONVERSATION = (
    Link("agent_chat_create", body=_CONVERSATION),
    *(
        Link(operation, parameters=_CONVERSATION)
        for operation in (
            "agent_conversation_meta_retrieve",
            "agent_conversation_timeline_list",
            "agent_context_stats_retrieve",
            "agent_conversations_partial_update",
            "agent_conversations_destroy",
        )
    ),
)


class StreamsNeedASGI(Unavailable):
    """The process was started as WSGI, which cannot hold streams."""

    code = "50300"
    message = _("The assistant cannot answer from this server. Please tell the operator to start it as ASGI.")


class StoppedShape(serializers.Serializer[Any]):
    """A run after a request to stop it."""

    run_id = serializers.CharField()
    state = serializers.ChoiceField(
        choices=list(RunState), help_text="Still `running` when its executor does not answer; it ends within moments."
    )


class ChatView(APIView):
    """Sending a message."""

    error_codes = ("40004", "40006", "40033", "40051", "40401", "40910", "42200", "50301")

    @extend_schema(request=shapes.ChatRequest, responses=EVENTS, parameters=[*NEW_RUN, *KEY], tags=["agent"])
    @leads_to(*_TO_THE_RUN, *_TO_THE_CONVERSATION)
    def post(self, request: Request) -> Response:
        """Send a message and read the answer as it is made."""
        raise StreamsNeedASGI


class RunEventsView(APIView):
    """Reading along."""

    error_codes = ("40005", "40033", "40402", "50301")

    @extend_schema(request=None, responses=EVENTS, parameters=POSITION, tags=["agent"])
    def get(self, request: Request, run_id: UUID) -> Response:
        """Read an answer from its beginning, or behind the last event that was seen; from any device, also at once."""
        raise StreamsNeedASGI


class StopRunView(APIView):
    """Stopping."""

    error_codes = ("40402",)

    @extend_schema(request=None, responses={200: StoppedShape}, tags=["agent"])
    def post(self, request: Request, run_id: UUID) -> Response:
        """Stop an answer; what was said is kept and charged. Stopping twice, or too late, changes nothing."""
        raise StreamsNeedASGI


class RegenerateView(APIView):
    """Another answer."""

    error_codes = ("40033", "40051", "40402", "40910", "40912", "50301")

    @extend_schema(request=None, responses=EVENTS, parameters=NEW_RUN, tags=["agent"])
    @leads_to(*_TO_THE_RUN)
    def post(self, request: Request, run_id: UUID) -> Response:
        """Let the last question be answered once more, and read the answer as it is made; the earlier ones stay."""
        raise StreamsNeedASGI


class ContinueView(APIView):
    """Going on."""

    error_codes = ("40033", "40051", "40402", "40910", "40913", "50301")

    @extend_schema(request=None, responses=EVENTS, parameters=NEW_RUN, tags=["agent"])
    @leads_to(*_TO_THE_RUN)
    def post(self, request: Request, run_id: UUID) -> Response:
        """Let the assistant go on where its last answer was stopped or interrupted, and read what it adds."""
        raise StreamsNeedASGI
