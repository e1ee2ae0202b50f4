"""POST /api/v1/agent/chat as raw ASGI: an open stream holds no thread and no database connection.

The turn is committed before the answer begins, so bad input and an absent database are plain JSON errors. After that
this code only reads along: the executor owns the run, and a client that leaves changes nothing.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.utils import translation
from django.utils.translation.trans_real import parse_accept_lang_header
from rest_framework.exceptions import MethodNotAllowed, ParseError, UnsupportedMediaType

from chat.api.serializers import ChatRequest
from chat.contracts import StartedRun, TurnRequest
from chat.operations import begin_turn
from chat.runs.executor import RunExecutor
from chat.runs.log import RunLog
from smartflow.accounts.queries import authenticate_token
from smartflow.api.database_threads import DatabaseThreads
from smartflow.api.envelope import to_json
from smartflow.api.exception_handler import error_response, log_failure
from smartflow.kernel.clock import Clock
from smartflow.kernel.sse import PING
from smartflow.observability.request_id import accept_request_id
from smartflow.observability.tracing import accept_traceparent

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATH = "/api/v1/agent/chat"


class ClientDisconnected(Exception):
    """The client left before its request was complete: there is nobody to answer and nothing was written."""


class ChatStream:
    """The endpoint, with everything it touches given from outside."""

    def __init__(self, *, executor: RunExecutor, database: DatabaseThreads, clock: Clock, owner: str) -> None:
        self._executor = executor
        self._database = database
        self._clock = clock
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = accept_request_id(headers.get("x-request-id"))
        accept_traceparent(headers.get("traceparent"), name=f"POST {PATH}")
        language = _language(headers.get("accept-language", ""))
        # For this request's task alone: the server gives each its own context, and the database's threads copy it.
        translation.activate(language)
        try:
            _check_kind(scope["method"], headers.get("content-type", ""))
            body = await _read_body(receive, limit=settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            run = await self._begin(body, headers.get("authorization"), request_id, language)
        except ClientDisconnected:
            return
        except Exception as error:
            status, answer, extra = error_response(error)
            log_failure(error, status)
            if status == 405:
                extra |= {"Allow": "POST"}
            await _send_json(send, status, answer, extra, request_id)
            return
        await self._stream(run, self._executor.start(run), receive, send)

    async def _begin(self, body: bytes, authorization: str | None, request_id: str, language: str) -> StartedRun:
        """Authenticate, read the body and commit the turn, in one visit to the database's threads."""

        def begin() -> StartedRun:
            now = self._clock()
            user = authenticate_token(header=authorization, now=now)
            request = _read_turn(body, user_id=user.user_id, request_id=request_id, language=language)
            self._executor.check_room()
            return begin_turn(
                request=request, owner=self._owner, lease_seconds=settings.CHAT_RUN_LEASE_SECONDS, now=now
            )

        return await self._database.run(begin)

    async def _stream(self, run: StartedRun, log: RunLog, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-cache, no-transform"),
                    (b"x-accel-buffering", b"no"),
                    (b"content-encoding", b"identity"),
                    (b"x-conversation-id", run.conversation_id.encode()),
                    (b"x-run-id", run.run_id.encode()),
                    (b"x-request-id", run.request_id.encode()),
                ],
            }
        )
        gone = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await _follow(log, gone, send, language=run.language)
        finally:
            gone.cancel()


def _read_turn(body: bytes, *, user_id: int, request_id: str, language: str) -> TurnRequest:
    """Return what the user asks for. Raises: ParseError and ValidationError, as any other route does."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ParseError from error
    serializer = ChatRequest(data=values)
    serializer.is_valid(raise_exception=True)
    checked = serializer.validated_data
    return TurnRequest(
        user_id=user_id,
        message=checked["message"],
        conversation_id=checked["conversation_id"] or None,
        model=checked["model"],
        thinking=checked["thinking"],
        request_id=request_id,
        language=language,
    )


async def _follow(log: RunLog, gone: asyncio.Future[None], send: Send, *, language: str) -> None:
    """Send the log's events as they come, a ping while there is none, until its end or until the client is gone."""
    seen = 0
    while not gone.done():
        changed = log.changed()
        frames, seen = log.frames_after(seen)
        is_over = log.end_of_run is not None
        if is_over:
            frames += log.last_frames(language=language)
        if frames:
            await send({"type": "http.response.body", "body": frames, "more_body": not is_over})
            if is_over:
                return
            continue
        done, _ = await asyncio.wait(
            {changed, gone}, timeout=settings.CHAT_PING_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            await send({"type": "http.response.body", "body": PING, "more_body": True})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_body(receive: Receive, *, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise RequestDataTooBig
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send_json(send: Send, status: int, body: dict[str, Any], extra: dict[str, str], request_id: str) -> None:
    content = to_json(body)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "X-Request-ID": request_id,
        **extra,
    }
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})


def _check_kind(method: str, content_type: str) -> None:
    """Refuse what cannot be a turn. Raises: MethodNotAllowed, UnsupportedMediaType."""
    if method != "POST":
        raise MethodNotAllowed(method)
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(content_type)


def _language(accept: str) -> str:
    """Return the first language of the header that there is a translation for."""
    for name, _quality in parse_accept_lang_header(accept):
        try:
            return translation.get_supported_language_variant(name)
        except LookupError:
            continue
    return settings.LANGUAGE_CODE
