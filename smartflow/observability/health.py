"""The health routes, without envelope: alive, ready, and which part is down.

For orchestrators and for people; they need no token and give no secret away.
"""

from django.conf import settings
from django.urls import path
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from smartflow.observability.probes import PartHealth, configured_checks, probe_parts

# Without these nothing can be answered; without the others the product is slower or delivers later.
ESSENTIAL_PARTS = frozenset({"database"})


class HealthShape(serializers.Serializer[object]):
    """The short answer."""

    status = serializers.CharField()
    version = serializers.CharField()


class PartShape(serializers.Serializer[object]):
    """One part's answer."""

    ok = serializers.BooleanField()
    ms = serializers.FloatField()
    error = serializers.CharField(required=False)


class ReadyShape(serializers.Serializer[object]):
    """The long answer."""

    status = serializers.CharField(help_text="ok, degraded or down")
    parts = serializers.DictField(child=PartShape())


class _OpenView(APIView):
    """Neither token nor envelope."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = ()
    renderer_classes = (JSONRenderer,)
    is_enveloped = False


class HealthView(_OpenView):
    """The short health check."""

    @extend_schema(responses={200: HealthShape}, tags=["health"])
    def get(self, request: Request) -> Response:
        """Say that the process answers, and its version."""
        return Response({"status": "ok", "version": settings.VERSION})


@extend_schema_view(get=extend_schema(operation_id="api_health_retrieve"))
class ApiHealthView(HealthView):
    """The same below the API's prefix, where the reference product has it."""


class LiveView(_OpenView):
    """The liveness check."""

    @extend_schema(responses={200: HealthShape}, tags=["health"])
    def get(self, request: Request) -> Response:
        """Say that the process runs. It asks no other part: restarting this process would not mend one."""
        return Response({"status": "ok", "version": settings.VERSION})


class ReadyView(_OpenView):
    """The readiness check."""

    @extend_schema(
        responses={
            200: OpenApiResponse(ReadyShape, description="Can serve; `degraded` names parts that are away."),
            503: OpenApiResponse(ReadyShape, description="Can't serve: an essential part is down."),
        },
        tags=["health"],
    )
    def get(self, request: Request) -> Response:
        """Ask every configured part and name the ones that are down."""
        parts = probe_parts(configured_checks())
        status = summarise(parts)
        body = {"status": status, "parts": {name: _shown(part) for name, part in parts.items()}}
        return Response(body, status=503 if status == "down" else 200)


def summarise(parts: dict[str, PartHealth]) -> str:
    """Return ok, degraded or down: a turn needs the database only and never waits for a broker or a cache."""
    failed = {name for name, part in parts.items() if not part.is_ok}
    if failed & ESSENTIAL_PARTS:
        return "down"
    return "degraded" if failed else "ok"


def _shown(part: PartHealth) -> dict[str, object]:
    shown: dict[str, object] = {"ok": part.is_ok, "ms": part.milliseconds}
    return shown | {"error": part.error} if part.error else shown


urlpatterns = [
    path("health", HealthView.as_view()),
    path("health/live", LiveView.as_view()),
    path("health/ready", ReadyView.as_view()),
    path("api/v1/health", ApiHealthView.as_view()),
]
