"""A signed-in user and what a client sees of one turn, byte for byte as it came."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

PASSWORD = "korrekt-Pferd-9-Batterie"


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: str
    data: str
    at: float


@dataclass
class Reply:
    """One turn's answer. `body` is the JSON of an answer that is no stream; `is_broken` when the connection died."""

    started_at: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)
    is_broken: bool = False
    ended_at: float = 0.0

    @property
    def conversation_id(self) -> str:
        return self.headers["x-conversation-id"]

    @property
    def run_id(self) -> str:
        return self.headers["x-run-id"]

    @property
    def seconds(self) -> float:
        return self.ended_at - self.started_at

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(event.data) for event in self.events if event.data != "[DONE]"]

    @property
    def text(self) -> str:
        """What a client shows: the pieces in order, a snapshot in place of everything before it."""
        shown = ""
        for chunk in self.chunks:
            content = chunk["choices"][0]["delta"].get("content", "") if "choices" in chunk else ""
            shown = content if is_snapshot(chunk) else shown + content
        return shown

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        return [chunk for chunk in self.chunks if is_snapshot(chunk)]

    @property
    def finish_reason(self) -> str | None:
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in self.chunks if "choices" in chunk]
        return next((reason for reason in reasons if reason), None)

    @property
    def error(self) -> dict[str, str]:
        return next((chunk["error"] for chunk in self.chunks if "error" in chunk), {})

    @property
    def done_count(self) -> int:
        return sum(event.data == "[DONE]" for event in self.events)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    def longest_silence(self) -> float:
        """Return the longest time in which the reader got nothing at all, not even a ping."""
        moments = sorted([self.started_at, *self.pings, *(event.at for event in self.events), self.ended_at])
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def assert_whole(self) -> None:
        """Every event has an id, ids are positions without gaps, and the answer ends with `stop` and one [DONE]."""
        assert self.status == 200, self.body
        assert self.error == {}
        assert not self.is_broken
        assert self.finish_reason == "stop"
        self._assert_ended()

    def assert_failed(self, code: str) -> None:
        """The reader is told why in words, and the stream ends properly without claiming a finished answer."""
        assert self.status == 200, self.body
        assert self.error.get("code") == code, self.events[-3:]
        message = self.error["message"]
        assert not message[0].islower()
        assert message.endswith((".", "。"))
        assert not any(word in message for word in ("Error", "Exception", "http", "HTTP", "sk-", "Traceback", "_"))
        assert self.finish_reason is None
        self._assert_ended()

    def _assert_ended(self) -> None:
        assert self.done_count == 1
        assert self.events[-1].data == "[DONE]"
        self.assert_gapless()

    def assert_gapless(self, after: int = 0) -> None:
        """Each event's id is the attempt and the position behind it: every unit was seen once, in order."""
        for event in self.events:
            attempt, units = event.id.split("-")
            assert int(attempt) >= 1
            is_new_start = event.data != "[DONE]" and is_snapshot(json.loads(event.data))
            after = int(units) if is_new_start else after + units_of(event.data)
            assert int(units) == after, (event, after)


def is_snapshot(chunk: dict[str, Any]) -> bool:
    """Tell whether an event stands for everything before it."""
    return bool(chunk.get("extra", {}).get("kind") == "snapshot")


def units_of(data: str) -> int:
    """Return how many units an event takes: its characters of text, else one."""
    chunk = {} if data == "[DONE]" else json.loads(data)
    delta = chunk["choices"][0]["delta"] if "choices" in chunk else {}
    return len(delta["content"]) if "content" in delta else 1


@dataclass(frozen=True)
class Reading:
    """What is done with a stream's events, and when its reader has had enough."""

    leave_when: Callable[[Reply], bool] = lambda _reply: False
    on_event: Callable[[Reply], None] = lambda _reply: None


class Person:
    """A user with a token of their own."""

    def __init__(self, base_url: str, username: str) -> None:
        self.username = username
        self.user_id = 0
        self.token = ""
        self.refresh_token = ""
        self._devices: list[Person] = []
        self._http = httpx2.Client(base_url=base_url, timeout=httpx2.Timeout(60, connect=5), trust_env=False)

    def register(self) -> None:
        """Create the account and sign in."""
        registered = self.call(
            "POST", "/user/register", {"username": self.username, "password": PASSWORD, "phone_number": "1"}
        )
        assert registered.status_code == 201, registered.text
        self.user_id = registered.json()["data"]["id"]
        self.sign_in()

    def sign_in(self) -> None:
        """Open a session."""
        answer = self.call("POST", "/user/login", {"username": self.username, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        pair = answer.json()["data"]
        self.token, self.refresh_token = pair["access_token"], pair["refresh_token"]

    def call(self, method: str, path: str, body: object = None, **headers: str) -> httpx2.Response:
        """Send one request below /api/v1 and return the whole answer."""
        content = None if body is None else json.dumps(body).encode()
        sent = self._headers(headers) | ({"Content-Type": "application/json"} if content else {})
        return self._http.request(method, f"/api/v1{path}", content=content, headers=sent)

    def data(self, path: str) -> Any:
        """Return what a GET gives."""
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def timeline(self, conversation_id: str) -> list[dict[str, Any]]:
        return self.data(f"/agent/conversation-timeline?conversation_id={conversation_id}")

    def meta(self, conversation_id: str) -> dict[str, Any]:
        return self.data(f"/agent/conversation-meta?conversation_id={conversation_id}")

    def conversations(self) -> list[dict[str, Any]]:
        return self.data("/agent/conversation-list?page_size=100")["list"]

    def change(self, conversation_id: str, **values: str) -> httpx2.Response:
        return self.call("PATCH", f"/agent/conversations/{conversation_id}", values)

    def delete(self, conversation_id: str) -> httpx2.Response:
        return self.call("DELETE", f"/agent/conversations/{conversation_id}")

    def chat(
        self,
        message: str,
        conversation_id: str = "",
        *,
        leave_when: Callable[[Reply], bool] = lambda _reply: False,
        on_event: Callable[[Reply], None] = lambda _reply: None,
        **headers: str,
    ) -> Reply:
        """Send one message and read the answer to its end, or until `leave_when` closes the connection."""
        body = {"message": message} | ({"conversation_id": conversation_id} if conversation_id else {})
        reading = Reading(leave_when, on_event)
        return self._read("POST", "/agent/chat", body, reading, headers)

    def follow(
        self,
        run_id: str,
        after: str = "",
        *,
        leave_when: Callable[[Reply], bool] = lambda _reply: False,
        on_event: Callable[[Reply], None] = lambda _reply: None,
        **headers: str,
    ) -> Reply:
        """Read a run's events behind the one with this id to their end, or until `leave_when` closes the connection."""
        sent = {"Last-Event-ID": after} if after else {}
        reading = Reading(leave_when, on_event)
        return self._read("GET", f"/agent/runs/{run_id}/events", None, reading, sent | headers)

    def ask_again(self, run_id: str, what: str) -> Reply:
        """Read another answer to the same question (`regenerate`), or how an answer goes on (`continue`)."""
        return self._read("POST", f"/agent/runs/{run_id}/{what}", {}, Reading(), {})

    def stop(self, run_id: str) -> httpx2.Response:
        return self.call("POST", f"/agent/runs/{run_id}/stop")

    def at(self, base_url: str) -> "Person":
        """Return the same user on another device, at another web process of the installation."""
        other = Person(base_url, self.username)
        other.user_id, other.token = self.user_id, self.token
        self._devices.append(other)
        return other

    def _read(self, method: str, path: str, body: object, reading: "Reading", headers: dict[str, str]) -> Reply:
        content = None if body is None else json.dumps(body).encode()
        sent = self._headers(headers) | {"Accept": "text/event-stream"}
        sent |= {"Content-Type": "application/json"} if content else {}
        reply = Reply(time.monotonic())
        try:
            with self._http.stream(method, f"/api/v1{path}", content=content, headers=sent) as answer:
                reply.status, reply.headers = answer.status_code, dict(answer.headers)
                if not answer.headers["content-type"].startswith("text/event-stream"):
                    reply.body = json.loads(answer.read())
                    return reply
                for kind in _events(answer, reply):
                    if kind == "event":
                        reading.on_event(reply)
                    if reading.leave_when(reply):
                        break
        except httpx2.TransportError:
            reply.is_broken = True
        finally:
            reply.ended_at = time.monotonic()
        return reply

    def close(self) -> None:
        for device in self._devices:
            device.close()
        self._http.close()

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return {"Authorization": f"Bearer {self.token}", **given} if self.token else given


def _events(answer: httpx2.Response, reply: Reply) -> Iterator[str]:
    """Read the stream into the reply and yield after each event and each ping."""
    event_id, lines = "", []
    for line in _lines(answer):
        if line.startswith(":"):
            reply.pings.append(time.monotonic())
            yield "ping"
        elif line.startswith("id:"):
            event_id = line[3:].strip()
        elif line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            reply.events.append(Event(event_id, "\n".join(lines), time.monotonic()))
            event_id, lines = "", []
            yield "event"
        else:
            assert not line, f"a line that is none of SSE's: {line!r}"


def _lines(answer: httpx2.Response) -> Iterator[str]:
    """Split as server-sent events are split, at line feeds alone: str.splitlines() knows ten more line ends."""
    rest = b""
    for content in answer.iter_bytes():
        *lines, rest = (rest + content).split(b"\n")
        for line in lines:
            yield line.decode()
