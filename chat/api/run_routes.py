"""The routes of live runs as raw ASGI: an open stream holds no thread and no database connection.

What a request changes is committed before its answer begins, so bad input and an absent database are plain JSON errors.
After that this code only reads along: an executor owns the run, and a client that leaves changes nothing.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from django.utils.translation import gettext
from rest_framework.exceptions import UnsupportedMediaType

from chat.api.raw_http import (
    ClientDisconnected,
    RawRequest,
    Receive,
    Scope,
    Send,
    read_request,
    send_error,
    send_json,
    stream_head,
)
from chat.api.serializers import ChatRequest
from chat.contracts import LIVE_STATES, RunSnapshot, RunState, StartedRun, TurnRequest
from chat.operations import Claimant, RunNotFound, begin_continuation, begin_turn, begin_variant, request_stop
from chat.queries import find_run
from chat.run_queries import is_run_of
from chat.runs.document import Position
from chat.runs.executor import RunExecutor
from chat.runs.hints import RUN_QUEUED, RUN_STOP, Hints
from chat.runs.log import RunLog
from chat.runs.logs import RunLogs
from chat.runs.tails import Tail, Tails, TooManyTailsOfUser
from smartflow.accounts.queries import authenticate_token
from smartflow.api.database_threads import DatabaseThreads
from smartflow.api.envelope import success
from smartflow.api.idempotency import HEADER, REPLAYED_HEADER, check_key
from smartflow.api.json_limits import read_json
from smartflow.api.throttling import check_rate
from smartflow.kernel.clock import Clock
from smartflow.kernel.errors import Invalid
from smartflow.kernel.ids import is_uuid
from smartflow.kernel.text import noop as _

CHAT_PATH = "/api/v1/agent/chat"
_RUN_PATH = re.compile(r"/api/v1/agent/runs/([^/]+)/(events|stop|regenerate|continue)")
# A stop answers at the latest after this, when the run's owner does not: it dies, or it waits for the database.
STOP_PATIENCE_SECONDS = 2.0


class PositionInvalid(Invalid):
    """`after` or Last-Event-ID is no event's id."""

    message = _("Give the id of the last event that you have, such as 1-345.")


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """What the routes touch. Without an executor runs wait for one in another process."""

    database: DatabaseThreads
    logs: RunLogs
    hints: Hints
    tails: Tails
    executor: RunExecutor | None
    claimant: Claimant
    clock: Clock
    # What leases are compared by; read in the database's threads alone.
    lease_clock: Clock


@dataclass(slots=True)
class _Call:
    """One request for a route, and the run that its path names."""

    request: RawRequest
    run_id: str
    send: Send
    body: bytes = b""
    session_id: str = ""  # once it is known who asks


class RunRoutes:
    """Sending a message, following a run, stopping it, another answer, and going on."""

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts
        self._routes: dict[str, tuple[str, Callable[[_Call], Awaitable[Tail | None]]]] = {
            "chat": ("POST", self._chat),
            "events": ("GET", self._events),
            "stop": ("POST", self._stop),
            "regenerate": ("POST", self._regenerate),
            "continue": ("POST", self._continue),
        }

    @staticmethod
    def serves(path: str) -> bool:
        """Tell whether a path is one of these routes."""
        return path == CHAT_PATH or _RUN_PATH.fullmatch(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Nothing of it is kept while its stream is open: neither its context nor its headers."""
        tail = await asyncio.get_running_loop().create_task(self._answer(scope, receive, send))
        if tail is not None:
            _forget(scope["headers"])
            await self._parts.tails.serve(tail)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Tail | None:
        """Do what is asked; return the reader whose stream has begun, if it is a stream."""
        match = _RUN_PATH.fullmatch(scope["path"])
        run_id, name = match.groups() if match else ("", "chat")
        method, route = self._routes[name]
        request = read_request(scope, receive, route=f"/api/v1/agent/runs/{name}" if match else CHAT_PATH)
        try:
            request.check_method(method)
            if match and not is_uuid(run_id):
                raise RunNotFound
            # once: a server tells whoever asks again only that the client has left
            body = await request.body() if name == "chat" else b""
            return await self._in_the_users_place(route, _Call(request, run_id.lower(), send, body))
        except ClientDisconnected:
            return None
        except Exception as error:
            await send_error(send, error, request)
            return None

    async def _in_the_users_place(self, route: Callable[[_Call], Awaitable[Tail | None]], call: _Call) -> Tail | None:
        """Answer, and once more when places of the user's are taken by readers that have left."""
        try:
            return await route(call)
        except TooManyTailsOfUser as error:
            if not self._parts.tails.drop_gone(error.user_id):
                raise
            return await route(call)

    # --- beginning --------------------------------------------------------------------------------------------------

    async def _chat(self, call: _Call) -> Tail:
        def begin(user_id: int) -> StartedRun | RunSnapshot:
            _check_media_type(call.request)
            request = _read_turn(call.body, user_id=user_id, request=call.request)
            self._check_room(user_id)
            claimant = self._parts.claimant
            return begin_turn(
                request=request,
                owner=claimant.owner,
                lease_seconds=claimant.lease_seconds,
                now=self._parts.lease_clock(),
            )

        return await self._begin(call, begin)

    async def _regenerate(self, call: _Call) -> Tail:
        return await self._begin(call, lambda user_id: self._begin_again(begin_variant, user_id, call))

    async def _continue(self, call: _Call) -> Tail:
        return await self._begin(call, lambda user_id: self._begin_again(begin_continuation, user_id, call))

    def _begin_again(self, begin: Callable[..., StartedRun], user_id: int, call: _Call) -> StartedRun:
        self._check_room(user_id)
        return begin(
            user_id=user_id,
            run_id=call.run_id,
            request_id=call.request.request_id,
            language=call.request.language,
            claimant=self._parts.claimant,
            now=self._parts.lease_clock(),
        )

    def _check_room(self, user_id: int) -> None:
        self._parts.tails.check_room(user_id)
        if self._parts.executor is not None:
            self._parts.executor.check_room()

    async def _begin(self, call: _Call, begin: Callable[[int], StartedRun | RunSnapshot]) -> Tail:
        """Authenticate and commit the run in one visit to the database's threads, and stream what it says."""
        run: StartedRun | RunSnapshot = await self._parts.database.run(lambda: begin(self._user_id(call)))
        if isinstance(run, StartedRun):
            log = self._log_of_new(run)
        else:
            log = self._parts.logs.follow(run)
            call.request.answer_headers[REPLAYED_HEADER] = "true"
        tail = self._tail(call, log, run.user_id)
        tail.head = stream_head(call.request, conversation_id=run.conversation_id, run_id=run.run_id)
        return tail

    def _log_of_new(self, run: StartedRun) -> RunLog:
        if self._parts.executor is not None:
            return self._parts.executor.start(run)
        self._parts.hints.publish(RUN_QUEUED, run.run_id)
        return self._parts.logs.follow(_snapshot_of_new(run, self._parts.clock))

    # --- following --------------------------------------------------------------------------------------------------

    async def _events(self, call: _Call) -> Tail:
        known = self._parts.logs.find(call.run_id)

        def look() -> tuple[int, Position | None, RunSnapshot | None]:
            user_id = self._user_id(call)
            after = _read_position(call.request)
            self._parts.tails.check_room(user_id)
            if known is not None and is_run_of(user_id=user_id, run_id=call.run_id):
                return user_id, after, None
            snapshot = find_run(user_id=user_id, run_id=call.run_id)
            if snapshot is None:
                raise RunNotFound
            return user_id, after, snapshot

        user_id, after, snapshot = await self._parts.database.run(look)
        log = known if snapshot is None else self._parts.logs.follow(snapshot)
        assert log is not None
        self._parts.tails.check_room(user_id)
        tail = self._tail(call, log, user_id)
        tail.head = stream_head(call.request, run_id=call.run_id)
        if after is not None:
            tail.go_on(after)
        return tail

    def _tail(self, call: _Call, log: RunLog, user_id: int) -> Tail:
        request = call.request
        tail = Tail(
            log=log,
            user_id=user_id,
            session_id=call.session_id,
            language=request.language,
            receive=request.receive,
            send=call.send,
        )
        self._parts.tails.add(tail)
        return tail

    # --- stopping ---------------------------------------------------------------------------------------------------

    async def _stop(self, call: _Call) -> None:
        known = self._parts.logs.find(call.run_id)

        def ask() -> tuple[RunState, RunSnapshot | None]:
            user_id = self._user_id(call)
            state = request_stop(user_id=user_id, run_id=call.run_id, now=self._parts.lease_clock())
            is_elsewhere = state in LIVE_STATES and known is None
            return state, find_run(user_id=user_id, run_id=call.run_id) if is_elsewhere else None

        state, snapshot = await self._parts.database.run(ask)
        if state in LIVE_STATES:
            log = known if snapshot is None else self._parts.logs.follow(snapshot)
            if self._parts.executor is None or not self._parts.executor.stop(call.run_id):
                self._parts.hints.publish(RUN_STOP, call.run_id)
            state = await _end_of(log) or state
        answer = success({"run_id": call.run_id, "state": state})
        await send_json(call.send, 200, answer, call.request.request_id, call.request.answer_headers)

    def _user_id(self, call: _Call) -> int:
        """Return who asks, counted, and note the session. Runs in the database's threads: Redis may take a moment."""
        request = call.request
        user = authenticate_token(header=request.authorization, now=self._parts.clock())
        call.session_id = user.session_id
        group = "agent" if request.method == "POST" else "read"
        verdict = check_rate(group=group, user_id=user.user_id, address=request.address)
        if verdict is not None:
            request.answer_headers.update(verdict.headers)
        return user.user_id


def _forget(headers: Any) -> None:
    """Let go of what the server keeps of a request for as long as its answer lasts: a token is most of it."""
    if isinstance(headers, list):
        headers.clear()


async def _end_of(log: RunLog | None) -> RunState | None:
    """Wait a moment for a run's end; None when it does not come."""
    until = monotonic() + STOP_PATIENCE_SECONDS
    while log is not None and log.end_of_run is None and monotonic() < until:
        await asyncio.wait({log.changed()}, timeout=until - monotonic())
    return log.end_of_run.state if log is not None and log.end_of_run is not None else None


def _read_position(request: RawRequest) -> Position | None:
    """Return from where a reader goes on; what its browser says is newer than what its address says."""
    found = None
    for name, value in (("Last-Event-ID", request.headers.get("last-event-id")), ("after", request.query.get("after"))):
        if value:
            position = Position.parse(value)
            if position is None:
                raise PositionInvalid(fields={name: gettext(PositionInvalid.message)})
            found = found or position
    return found


def _check_media_type(request: RawRequest) -> None:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(content_type)


def _read_turn(body: bytes, *, user_id: int, request: RawRequest) -> TurnRequest:
    """Return what the user asks for. Raises: ParseError and ValidationError, as any other route does."""
    serializer = ChatRequest(data=read_json(body))
    serializer.is_valid(raise_exception=True)
    checked: dict[str, Any] = serializer.validated_data
    key = request.headers.get(HEADER.lower())
    return TurnRequest(
        user_id=user_id,
        message=checked["message"],
        conversation_id=checked["conversation_id"] or None,
        model=checked["model"],
        thinking=checked["thinking"],
        request_id=request.request_id,
        language=request.language,
        key="" if key is None else check_key(key),
    )


def _snapshot_of_new(run: StartedRun, clock: Clock) -> RunSnapshot:
    return RunSnapshot(
        run_id=run.run_id,
        conversation_id=run.conversation_id,
        user_id=run.user_id,
        model=run.model,
        attempt=run.attempt,
        state=RunState.QUEUED,
        text="",
        events=(),
        error_code="",
        retry_after_seconds=None,
        created_at=clock(),
    )
