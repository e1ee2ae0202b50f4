"""Documents the routes of live runs. Under ASGI no request comes here: smartflow/asgi.py lets run_routes answer."""

from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api import serializers as shapes
from chat.contracts import RunState
from smartflow.kernel.errors import Unavailable
from smartflow.kernel.text import noop as _

EVENTS = {
    (200, "text/event-stream"): OpenApiResponse(
        response=OpenApiTypes.STR,
        description=(
            "Server-sent events, each with an `id`: OpenAI-style chunks, then `[DONE]`. An event whose `extra.kind` is "
            "`snapshot` replaces all that was shown of the answer. A failure after the start is an event with `error` "
            "before `[DONE]`; what was said is kept. An answer without `[DONE]` was cut off: read on with the last id."
        ),
    )
}
NEW_RUN = [
    OpenApiParameter(name, str, OpenApiParameter.HEADER, response=[200], description=f"The {what} of this turn.")
    for name, what in (("X-Conversation-ID", "conversation"), ("X-Run-ID", "run"))
]
POSITION = [
    OpenApiParameter("after", str, OpenApiParameter.QUERY, description="The id of the last event that the reader has."),
    OpenApiParameter("Last-Event-ID", str, OpenApiParameter.HEADER, description="The same; it counts before `after`."),
]


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

    error_codes = ("40004", "40006", "40033", "40051", "40401", "40910", "50301")

    @extend_schema(request=shapes.ChatRequest, responses=EVENTS, parameters=NEW_RUN, tags=["agent"])
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
    def post(self, request: Request, run_id: UUID) -> Response:
        """Let the last question be answered once more, and read the answer as it is made; the earlier ones stay."""
        raise StreamsNeedASGI


class ContinueView(APIView):
    """Going on."""

    error_codes = ("40033", "40051", "40402", "40910", "40913", "50301")

    @extend_schema(request=None, responses=EVENTS, parameters=NEW_RUN, tags=["agent"])
    def post(self, request: Request, run_id: UUID) -> Response:
        """Let the assistant go on where its last answer was stopped or interrupted, and read what it adds."""
        raise StreamsNeedASGI
