"""outbox/registry.py: one handler a type, one topic a domain, and nothing outside the catalog."""

import pytest

from outbox import registry
from smartflow.events import ChatHistoryPersistRequested, EventUnreadable, TaskItemCreated
from tests.outbox_rows import EVENT_TYPE, make_event


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch):
    monkeypatch.setattr(registry, "_handlers", {})
    GIVEN.clear()


GIVEN = []


def first(event, *, event_id):
    GIVEN.append((event, event_id))


def second(event, *, event_id):
    GIVEN.append("second")


def batch(received):
    GIVEN.append(list(received))


def test_handles_registers_the_function_and_returns_it():
    assert registry.handles(EVENT_TYPE)(first) is first
    assert registry.handled_types() == {EVENT_TYPE}


def test_handler_for_gives_a_handler_one_event_after_the_other():
    registry.handles(EVENT_TYPE)(first)

    registry.handler_for(EVENT_TYPE)([registry.Received("a", "1"), registry.Received("b", "2")])
    assert GIVEN == [("a", "1"), ("b", "2")]


def test_handler_for_gives_a_batch_handler_all_at_once():
    assert registry.handles_batch(EVENT_TYPE)(batch) is batch

    registry.handler_for(EVENT_TYPE)([registry.Received("a", "1"), registry.Received("b", "2")])
    assert [[registry.Received("a", "1"), registry.Received("b", "2")]] == GIVEN


def test_handles_batch_refuses_when_the_type_has_another_handler():
    registry.handles(EVENT_TYPE)(first)

    with pytest.raises(ValueError, match="has a handler already"):
        registry.handles_batch(EVENT_TYPE)(batch)


def test_handles_accepts_the_same_function_twice():
    registry.handles(EVENT_TYPE)(first)
    registry.handles(EVENT_TYPE)(first)

    assert registry.handled_types() == {EVENT_TYPE}


def test_handles_refuses_when_the_type_has_another_handler():
    registry.handles(EVENT_TYPE)(first)

    with pytest.raises(ValueError, match="has a handler already"):
        registry.handles(EVENT_TYPE)(second)


def test_handles_refuses_when_the_type_is_not_in_the_catalog():
    with pytest.raises(registry.UnknownEventType, match=r"no\.such\.type"):
        registry.handles("no.such.type")


def test_handler_for_refuses_when_nothing_handles_the_type():
    with pytest.raises(registry.HandlerMissing, match=EVENT_TYPE):
        registry.handler_for(EVENT_TYPE)


def test_handler_for_leaves_a_fact_unread_when_nothing_follows_it():
    assert TaskItemCreated.event_type in registry.optional_types()
    assert EVENT_TYPE not in registry.optional_types()

    assert registry.handler_for(TaskItemCreated.event_type)([registry.Received("a", "1")]) is None


def test_decode_event_returns_the_typed_event():
    event = make_event("你好")

    assert registry.decode_event(event_type=EVENT_TYPE, version=2, payload=event.to_payload()) == event


@pytest.mark.parametrize(("event_type", "version"), [(EVENT_TYPE, 99), ("no.such.type", 1)])
def test_decode_event_refuses_when_the_catalog_does_not_know_it(event_type, version):
    with pytest.raises(EventUnreadable, match=f"version {version}"):
        registry.decode_event(event_type=event_type, version=version, payload=make_event().to_payload())


@pytest.mark.parametrize("changes", [{"user_id": "1"}, {"user_id": True}, {"message": None}, {"tokens_consumed": 1.5}])
def test_decode_event_names_the_field_when_its_type_is_wrong(changes):
    with pytest.raises(EventUnreadable, match=next(iter(changes))):
        registry.decode_event(event_type=EVENT_TYPE, version=1, payload=make_event().to_payload() | changes)


def test_topic_for_is_the_topic_of_the_domain(settings):
    settings.OUTBOX_TOPICS = {"chat": "t1", "agent": "t2"}

    assert registry.topic_for(ChatHistoryPersistRequested.event_type) == "t1"
    assert registry.all_topics() == ["t1", "t2"]


def test_topic_for_refuses_when_the_domain_has_no_topic(settings):
    settings.OUTBOX_TOPICS = {"agent": "t2"}

    with pytest.raises(registry.UnknownEventType, match="'chat'"):
        registry.topic_for(EVENT_TYPE)


def test_topic_for_refuses_when_the_type_is_not_in_the_catalog():
    with pytest.raises(registry.UnknownEventType, match=r"chat\.other"):
        registry.topic_for("chat.other")
