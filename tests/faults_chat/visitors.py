"""The students and their devices: they ask, read along, drop out and come back, stop, and ask for more.

Everything happens on one event loop. What was promised to them (a 2xx answer) and what they saw is only noted here;
checker.py judges it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import httpx2

from tests.faults_chat.plan import WEBS, Answer, Device, Drop, Plan, Step
from tests.faults_chat.reading import DeviceView, Event, Sight

# A reader who hears not even a ping for so long tries elsewhere; the product pings every five seconds.
SILENCE_SECONDS = 6.0
AGAIN_SECONDS = 0.2
ASK_SECONDS = 8.0
UNKNOWN = httpx2.TransportError, httpx2.StreamError


@dataclass
class Person:
    """A user of the run, with a conversation and a token."""

    name: str
    user_id: int
    token: str
    conversation_id: str = ""


@dataclass(frozen=True)
class Accepted:
    """A run whose 2xx headers were seen. `answer`: how the upstream was asked to answer; None when it was not told."""

    run_id: str
    conversation_id: str
    user_id: int
    kind: str
    message: str
    answer: Answer | None


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    token: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None


@dataclass
class Visit:
    """What came of a run's students."""

    accepted: list[Accepted] = field(default_factory=list)
    views: list[DeviceView] = field(default_factory=list)
    stops: dict[str, float] = field(default_factory=dict)
    # answers that are no success, by status and code
    refusals: dict[str, int] = field(default_factory=dict)
    gave_up: list[str] = field(default_factory=list)


class Visitors:
    """One run's students."""

    def __init__(self, plan: Plan, people: list[Person], ports: Mapping[str, int]) -> None:
        self.visit = Visit()
        self._plan = plan
        self._people = people
        self._urls = {name: f"http://127.0.0.1:{port}/api/v1/agent" for name, port in ports.items()}
        self._deadline = float("inf")

    def end_within(self, seconds: float) -> None:
        """From now on it is the product's turn: whoever has not been told an end by then never will be."""
        self._deadline = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._deadline

    async def run(self) -> None:
        """Let everybody do what the plan says, until all have been told the end of all they asked for."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        timeout = httpx2.Timeout(SILENCE_SECONDS, connect=2)
        async with httpx2.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as self._http:
            people = zip(self._people, self._plan.students, strict=False)
            await asyncio.gather(*(self._study(person, steps) for person, steps in people))

    async def _study(self, person: Person, steps: tuple[Step, ...]) -> None:
        last: Accepted | None = None
        for step in steps:
            await asyncio.sleep(step.pause_seconds)
            last = await self._take(person, step, last)
            if last is None:
                return

    async def _take(self, person: Person, step: Step, last: Accepted | None) -> Accepted | None:
        """Ask until somebody accepts, then read to the end on every device."""
        asker, *others = step.devices
        web = asker.web
        for attempt in range(1000):
            if self.is_over:
                self.visit.gave_up.append(f"{person.name} was never let in")
                return None
            view = DeviceView("asker", "")
            accepted = await self._ask(person, step, last, WEBS[web % 2], view, attempt)
            if accepted is not None:
                begun = time.monotonic()
                watchers = [self._watch(person, accepted, device, number) for number, device in enumerate(others, 1)]
                await asyncio.gather(
                    self._stay(person, view, asker, web), *watchers, self._stop(person, accepted, step, begun)
                )
                return accepted
            web += 1
            await asyncio.sleep(AGAIN_SECONDS * min(attempt + 1, 5))
        return None

    async def _ask(
        self, person: Person, step: Step, last: Accepted | None, web: str, view: DeviceView, attempt: int
    ) -> Accepted | None:
        """Send what begins a run and read its answer until it breaks, ends, or the device drops out."""
        message = step.message if not attempt else f"{step.message} ({attempt})"
        kind, path = step.kind, "/chat"
        body: dict[str, str] = {"message": message}
        if person.conversation_id:
            body["conversation_id"] = person.conversation_id
        if last is not None and kind != "say" and attempt < 5:  # some answers can be neither continued nor made anew
            path, body = f"/runs/{last.run_id}/{kind}", {}
        else:
            kind = "say"
        expected = {"say": step.answer, "regenerate": last.answer if last else None}.get(kind)
        sight = Sight(web, "")
        found: Accepted | None = None

        def begin(answer: httpx2.Response) -> None:
            nonlocal found
            view.run_id = answer.headers["x-run-id"]
            person.conversation_id = answer.headers["x-conversation-id"]
            said = message if kind == "say" else ""
            found = Accepted(view.run_id, person.conversation_id, person.user_id, kind, said, expected)
            self.visit.accepted.append(found)
            self.visit.views.append(view)
            view.sights.append(sight)

        drop = step.devices[0].drops[0] if step.devices[0].drops else None
        await self._read(sight, drop, begin, _Request("POST", path, person.token, body=body))
        if sight.live_run_id:
            await self._find(person, sight.live_run_id, web)
        return found

    async def _find(self, person: Person, run_id: str, web: str) -> None:
        """Follow the run that is in the way: its headers never came, or its asker was not told of it."""
        view = DeviceView("finder", run_id)
        self.visit.views.append(view)
        await self._stay(person, view, Device(web=0, at=1.0), WEBS.index(web))

    async def _watch(self, person: Person, accepted: Accepted, device: Device, number: int) -> None:
        """A second device, which finds the run by its id."""
        await asyncio.sleep(device.at)
        view = DeviceView(f"device-{number}", accepted.run_id)
        self.visit.views.append(view)
        await self._stay(person, view, device, device.web)

    async def _stay(self, person: Person, view: DeviceView, device: Device, web: int) -> None:
        """Come back until the end was told; the drops that are left happen on the way."""
        drops = list(device.drops)
        if device.is_asker and view.sights and view.sights[0].end == "left":
            await asyncio.sleep(drops.pop(0).away_seconds)
        failures = 0
        while not view.has_ended:
            if self.is_over:
                self.visit.gave_up.append(f"{view.run_id} {view.name}: {[s.end or s.code for s in view.sights][-5:]}")
                return
            drop = drops[0] if drops else None
            web += 1
            sight = Sight(WEBS[web % 2], view.last_id)
            view.sights.append(sight)
            headers, query = {}, ""
            if sight.after and device.tells_by == "header":
                headers["Last-Event-ID"] = sight.after
            elif sight.after:
                query = f"?after={sight.after}"
            path = f"/runs/{view.run_id}/events{query}"
            await self._read(sight, drop, None, _Request("GET", path, person.token, headers=headers))
            if sight.end == "left":
                await asyncio.sleep(drops.pop(0).away_seconds)
            elif not view.has_ended:
                failures = 0 if sight.events else failures + 1
                await asyncio.sleep(AGAIN_SECONDS * min(failures + 1, 5))

    async def _read(
        self, sight: Sight, drop: Drop | None, begin: Callable[[httpx2.Response], None] | None, asked: _Request
    ) -> None:
        """Read one connection into `sight`."""
        sent = {"Authorization": f"Bearer {asked.token}", "Accept": "text/event-stream", **asked.headers}
        content = None if asked.body is None else json.dumps(asked.body).encode()
        if content is not None:
            sent["Content-Type"] = "application/json"
        try:
            request = self._http.build_request(
                asked.method, self._urls[sight.web] + asked.path, headers=sent, content=content
            )
            answer = await self._http.send(request, stream=True)
            try:
                sight.status = answer.status_code
                if answer.status_code != 200:
                    await self._note_refusal(sight, answer, asked.path)
                    return
                if begin is not None:
                    begin(answer)
                await self._read_events(sight, answer, drop)
            finally:
                await answer.aclose()
        except UNKNOWN as error:
            sight.end, sight.code = "broken", type(error).__name__

    async def _read_events(self, sight: Sight, answer: httpx2.Response, drop: Drop | None) -> None:
        if drop is not None and not drop.after_events:
            sight.end = "left"
            return
        async for event in _events(answer):
            if event is not None:
                sight.events.append(event)
                if drop is not None and len(sight.events) >= drop.after_events and event.data != "[DONE]":
                    sight.end = "left"
                    return
            if self.is_over:
                sight.end = "broken"
                return
        sight.end = "closed"

    async def _note_refusal(self, sight: Sight, answer: httpx2.Response, path: str) -> None:
        await answer.aread()
        try:
            told = answer.json()
            code = str(told.get("status", ""))
            sight.live_run_id = str(told.get("run_id") or "")
        except ValueError:
            code = "no JSON"
        sight.end, sight.code = "refused", f"{answer.status_code} {code}"
        what = f"{path.split('/')[-1].partition('?')[0]} {sight.code}"
        self.visit.refusals[what] = self.visit.refusals.get(what, 0) + 1

    async def _stop(self, person: Person, accepted: Accepted, step: Step, begun: float) -> None:
        """Press the button, once or until somebody hears it."""
        if step.stops_at is None:
            return
        await asyncio.sleep(max(0.0, begun + step.stops_at - time.monotonic()))
        for number in range(5):
            url = self._urls[WEBS[(step.stops_from + number) % 2]] + f"/runs/{accepted.run_id}/stop"
            try:
                answer = await self._http.post(url, headers={"Authorization": f"Bearer {person.token}"})
            except UNKNOWN:
                answer = None
            if answer is not None and answer.is_success:
                self.visit.stops[accepted.run_id] = time.monotonic()
                return
            what = f"stop {answer.status_code}" if answer is not None else "stop broken"
            self.visit.refusals[what] = self.visit.refusals.get(what, 0) + 1
            await asyncio.sleep(AGAIN_SECONDS)


async def _events(answer: httpx2.Response) -> AsyncIterator[Event | None]:
    """Split as server-sent events are split; an event that was cut is none, a ping is None."""
    event_id, lines, rest = "", [], b""
    async for content in answer.aiter_bytes():
        now = time.monotonic()
        *whole, rest = (rest + content).split(b"\n")
        for line in (part.decode() for part in whole):
            if line.startswith(":"):
                yield None
            elif line.startswith("id:"):
                event_id = line[3:].strip()
            elif line.startswith("data:"):
                lines.append(line[5:].removeprefix(" "))
            elif not line and lines:
                yield Event(event_id, "\n".join(lines), now)
                event_id, lines = "", []
