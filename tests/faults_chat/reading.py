"""What one device saw of one answer, connection after connection. Pure: says which of the rules of streams it broke.

An event's id is the attempt and the position behind it; a position counts characters and structured events. The finish
or error has the end and one, `[DONE]` the end and two. A snapshot replaces all that was seen.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.faults.checker import Violation


@dataclass(frozen=True)
class Event:
    """One server-sent event and when it came, in the driver's monotonic seconds."""

    id: str
    data: str
    at: float


@dataclass
class Sight:
    """One connection: what it said it had (an id, or nothing), and what it was sent."""

    web: str
    after: str
    status: int = 0
    events: list[Event] = field(default_factory=list)
    # left by ourselves | broken | closed properly, whether or not there was an end | refused
    end: str = ""
    code: str = ""
    # of a refusal: the run that is in the way
    live_run_id: str = ""


@dataclass
class DeviceView:
    """All that a device saw of a run."""

    name: str
    run_id: str
    sights: list[Sight] = field(default_factory=list)

    @property
    def last_id(self) -> str:
        """What it tells when it comes back."""
        return next((sight.events[-1].id for sight in reversed(self.sights) if sight.events), "")

    @property
    def has_ended(self) -> bool:
        """Whether it was told the end."""
        return any(event.data == "[DONE]" for sight in self.sights for event in sight.events)


@dataclass
class Reading:
    """A device's screen: the text and when each character came, and how it was told the end."""

    text: str = ""
    came_at: list[float] = field(default_factory=list)
    attempt: int = 0
    units: int = 0
    done_count: int = 0
    finish: str = ""  # stop | stopped | an error's code
    violations: list[Violation] = field(default_factory=list)
    replaced: list["Replaced"] = field(default_factory=list)


@dataclass(frozen=True)
class Replaced:
    """A text that was shown, when its characters came, and of which attempt it was."""

    text: str
    came_at: list[float]
    attempt: int


@dataclass(frozen=True)
class Screen:
    """What a device was shown, and every text that stood there; a character came when the first device had it."""

    view: DeviceView
    reading: Reading
    texts: list[Replaced]


def read_screens(views: Sequence[DeviceView]) -> list[Screen]:
    """Read all devices. Who comes late is shown what others have seen long ago: it was not said any later for that."""
    first: dict[tuple[str, int, int], float] = {}
    screens = []
    for view in views:
        reading = read_view(view)
        texts = [*reading.replaced, Replaced(reading.text, reading.came_at, reading.attempt)]
        screens.append(Screen(view, reading, texts))
        for text in texts:
            for place, at in enumerate(text.came_at):
                key = (view.run_id, text.attempt, place)
                first[key] = min(at, first.get(key, at))
    return [
        replace(
            screen,
            texts=[
                replace(text, came_at=[first[screen.view.run_id, text.attempt, n] for n in range(len(text.came_at))])
                for text in screen.texts
            ],
        )
        for screen in screens
    ]


def read_view(view: DeviceView) -> Reading:
    """Read everything a device was sent, in order."""
    reading = Reading()
    for sight in view.sights:
        for number, event in enumerate(sight.events):
            for complaint in _read_event(reading, event):
                kind, _, detail = complaint.partition(": ")
                where = f"{view.run_id} {view.name} from {sight.web}, after {sight.after!r}, event {number}"
                reading.violations.append(Violation(kind, f"{where} {event.id} {event.data[:120]}: {detail}"))
    return reading


def _read_event(reading: Reading, event: Event) -> list[str]:
    attempt, units = (int(number) for number in event.id.split("-"))
    if reading.done_count:
        return ["after-end: something came behind the end mark"]
    if event.data == "[DONE]":
        reading.done_count += 1
        return [] if reading.finish else ["untold-end: the end mark came without how it ended"]
    chunk = json.loads(event.data)
    choice = chunk["choices"][0] if chunk.get("choices") else {}
    if chunk.get("extra", {}).get("kind") == "snapshot":
        return _replace(reading, choice, chunk["extra"], event, attempt, units)
    if "error" in chunk:
        reading.finish = chunk["error"]["code"]
        return _check_end(reading, attempt, units)
    if choice.get("finish_reason"):
        reading.finish = chunk.get("extra", {}).get("status", {}).get("code", choice["finish_reason"])
        return _check_end(reading, attempt, units)
    return _append(reading, choice.get("delta", {}).get("content", ""), event.at, attempt, units)


def _append(reading: Reading, content: str, at: float, attempt: int, units: int) -> list[str]:
    complaints = []
    if reading.attempt not in (attempt, 0) and reading.units:
        complaints.append(f"attempt-changed: from {reading.attempt} at {reading.units} without a snapshot")
    size = len(content) or 1
    if units - size != reading.units:
        kind = "gap" if units - size > reading.units else "repeat"
        complaints.append(f"{kind}: {reading.units} units were seen and this one begins at {units - size}")
    reading.attempt, reading.units = attempt, units
    reading.text += content
    reading.came_at += [at] * len(content)
    return complaints


def _replace(
    reading: Reading, choice: dict[str, Any], extra: dict[str, Any], event: Event, attempt: int, units: int
) -> list[str]:
    content = choice["delta"]["content"]
    # of what stays, the time of its first coming counts; of another attempt nothing stays
    is_same = reading.attempt in (attempt, 0)
    same = common_length(reading.text, content) if is_same else 0
    if same < len(reading.text):
        reading.replaced.append(Replaced(reading.text, reading.came_at, reading.attempt))
    reading.text, reading.came_at = content, reading.came_at[:same] + [event.at] * (len(content) - same)
    reading.attempt, reading.units = attempt, units
    if len(content) + len(extra.get("events", ())) != units:
        return [f"snapshot: it holds {len(content)} characters and says {units}"]
    return []


def _check_end(reading: Reading, attempt: int, units: int) -> list[str]:
    if units != reading.units + 1:
        return [f"end-gap: {reading.units} units were seen and the end is at {units - 1}"]
    if reading.units and attempt != reading.attempt:
        return [f"attempt-changed: the end of {attempt} behind the text of {reading.attempt}"]
    return []


def common_length(one: str, other: str) -> int:
    """How many characters two texts begin alike with."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
