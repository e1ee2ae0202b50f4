"""Fixtures of every folder that tests the outbox; a conftest.py imports what its folder needs."""

import pytest

from outbox import registry, wakeup
from outbox.selection import look_at_dead_letters
from tests.outbox_rows import EVENT_TYPE, SteppedClock


class RecordingHandler:
    """Stands in for the handler of the catalog's event: remembers what it was given; raises `error` when it is set."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.event_ids: list[str] = []
        self.error: Exception | None = None

    def __call__(self, event, *, event_id):
        if self.error is not None:
            raise self.error
        self.messages.append(event.message)
        self.event_ids.append(event_id)


@pytest.fixture
def handler(monkeypatch):
    recording = RecordingHandler()
    monkeypatch.setitem(registry._handlers, EVENT_TYPE, recording)
    return recording


@pytest.fixture
def clock():
    return SteppedClock()


@pytest.fixture(autouse=True)
def nudges(monkeypatch):
    """Collect the hints to relays; without this they would reach those of whoever works on this machine."""
    sent: list[tuple[int, ...]] = []
    monkeypatch.setattr(wakeup, "_wake", sent.append)
    return sent


@pytest.fixture
def short_look(monkeypatch):
    """Let a dry run look at two dead letters, a step of the walk being two."""
    monkeypatch.setattr("outbox.selection.LOOK_CAP", 2)
    monkeypatch.setattr(look_at_dead_letters, "__kwdefaults__", {**look_at_dead_letters.__kwdefaults__, "limit": 2})
