"""Hands the metrics of this process to Prometheus: web at /metrics, worker and consumer on a port of their own.

What is measured is registered elsewhere (outbox/metrics.py, outbox/collector.py); this file knows no metric.
"""

import logging
import secrets
from collections.abc import Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)

# Processes of one machine share the setting: each takes the first of these ports that is free.
PORTS = 16


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer a scraper that brings the token; without one in the settings there is no such page."""
    if not settings.METRICS_TOKEN:
        raise Http404
    if not is_allowed(request.headers.get("Authorization")):
        return HttpResponse(status=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
    body, content_type = _render(request.headers.get("Accept"))
    return HttpResponse(body, content_type=content_type)


def is_allowed(authorization: str | None) -> bool:
    """Tell whether the header brings the token; with none in the settings everybody is let in."""
    wanted = f"Bearer {settings.METRICS_TOKEN}"
    return not settings.METRICS_TOKEN or secrets.compare_digest((authorization or "").encode(), wanted.encode())


def start_exporter() -> WSGIServer | None:
    """Serve /metrics from a thread in the background, when a port is set; a port that can't be had stops nothing."""
    if not settings.METRICS_PORT:
        return None
    for port in range(settings.METRICS_PORT, settings.METRICS_PORT + PORTS):
        try:
            server = _Server((settings.METRICS_HOST, port), _SilentHandler)
        except OSError as error:
            failure = error
            continue
        server.set_app(_answer)
        Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        logger.info("Metrics are served", extra={"port": port})
        return server
    logger.warning("Metrics are not served: no port is free", extra={"first": settings.METRICS_PORT, "error": failure})
    return None


def _answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    if not is_allowed(environ.get("HTTP_AUTHORIZATION")):
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
        return []
    body, content_type = _render(environ.get("HTTP_ACCEPT"))
    start_response("200 OK", [("Content-Type", content_type)])
    return [body]


def _render(accept: str | None) -> tuple[bytes, str]:
    encode, content_type = choose_encoder(accept or "")
    return encode(REGISTRY), content_type


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # another process of this machine may hold the port: sharing it would hide one behind the other
    allow_reuse_port = False


class _SilentHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        """Write no line per scrape."""


urlpatterns = [path("metrics", metrics)]
