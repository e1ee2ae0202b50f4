"""A device's screen is put together from what it was sent, and each broken rule of the stream is named."""

import json

import pytest

from tests.faults_chat.reading import DeviceView, Event, Replaced, Sight, read_screens, read_view


def chunk(text, event_id, at=0.0):
    return Event(event_id, json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}), at)


def snapshot(text, event_id, at=0.0):
    extra = {"kind": "snapshot", "display_mode": "replace", "events": []}
    return Event(event_id, json.dumps({"choices": [{"index": 0, "delta": {"content": text}}], "extra": extra}), at)


def status(event_id):
    return Event(event_id, json.dumps({"extra": {"kind": "status", "status": {"code": "context_compact_start"}}}), 0.0)


def finish(event_id):
    return Event(event_id, json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), 0.0)


def error(event_id, code="model_cut"):
    return Event(event_id, json.dumps({"error": {"message": "m", "type": "server_error", "code": code}}), 0.0)


def done(event_id):
    return Event(event_id, "[DONE]", 0.0)


def read(*connections):
    return read_view(DeviceView("phone", "r1", [Sight("web-a", "", 200, list(events)) for events in connections]))


def kinds(reading):
    return [violation.kind for violation in reading.violations]


def test_read_view_joins_connections_when_each_goes_on_where_the_last_one_broke():
    reading = read(
        [chunk("一二三", "1-3", 1.0), status("1-4")],
        [],
        [chunk("ab", "1-6", 2.0), finish("1-7"), done("1-8")],
    )
    assert kinds(reading) == []
    assert (reading.text, reading.finish, reading.done_count) == ("一二三ab", "stop", 1)
    assert reading.came_at == [1.0, 1.0, 1.0, 2.0, 2.0]


def test_read_view_replaces_what_was_seen_when_a_snapshot_comes():
    reading = read([chunk("abcdef", "1-6", 1.0)], [snapshot("abcd", "1-4", 9.0), error("1-5"), done("1-6")])
    assert kinds(reading) == []
    assert (reading.text, reading.finish) == ("abcd", "model_cut")
    assert reading.came_at == [1.0] * 4
    assert reading.replaced == [Replaced("abcdef", [1.0] * 6, attempt=1)]


def test_read_view_gives_up_what_was_seen_when_a_snapshot_is_of_another_attempt():
    reading = read([chunk("abc", "1-3", 1.0)], [snapshot("abcd", "2-4", 9.0), finish("2-5"), done("2-6")])
    assert kinds(reading) == []
    assert reading.replaced == [Replaced("abc", [1.0] * 3, attempt=1)]


def test_read_screens_takes_the_moment_when_the_first_device_had_a_character():
    events = {"late": [chunk("abcd", "1-4", 9.0)], "early": [chunk("ab", "1-2", 1.0), chunk("c", "1-3", 2.0)]}
    views = [DeviceView(name, "r1", [Sight("web-a", "", 200, sent)]) for name, sent in events.items()]

    late, early = read_screens(views)

    assert late.texts == [Replaced("abcd", [1.0, 1.0, 2.0, 9.0], attempt=1)]
    assert early.texts == [Replaced("abc", [1.0, 1.0, 2.0], attempt=1)]


def test_read_view_takes_another_attempt_when_nothing_was_said_before():
    assert kinds(read([], [chunk("ab", "2-2"), finish("2-3"), done("2-4")])) == []


@pytest.mark.parametrize(
    ("connections", "kind"),
    [
        ([[chunk("ab", "1-2"), chunk("d", "1-4")]], "gap"),
        ([[chunk("ab", "1-2")], [chunk("cd", "1-5")]], "gap"),
        ([[chunk("ab", "1-2")], [chunk("bc", "1-3")]], "repeat"),
        ([[chunk("ab", "1-2")], [chunk("ab", "1-2")]], "repeat"),
        ([[chunk("ab", "1-2"), chunk("c", "2-3")]], "attempt-changed"),
        ([[chunk("ab", "1-2"), finish("2-3"), done("2-4")]], "attempt-changed"),
        ([[chunk("ab", "1-2"), finish("1-4"), done("1-5")]], "end-gap"),
        ([[chunk("ab", "1-2"), done("1-4")]], "untold-end"),
        ([[chunk("ab", "1-2"), finish("1-3"), done("1-4"), done("1-4")]], "after-end"),
        ([[chunk("ab", "1-2"), finish("1-3"), done("1-4"), chunk("c", "1-3")]], "after-end"),
        ([[snapshot("abc", "1-4")]], "snapshot"),
    ],
)
def test_read_view_names_the_broken_rule(connections, kind):
    assert kind in kinds(read(*connections))


def test_last_id_is_that_of_the_newest_event_of_any_connection():
    view = DeviceView("phone", "r1", [Sight("web-a", "", 200, [chunk("ab", "1-2")]), Sight("web-b", "1-2", 503)])
    assert view.last_id == "1-2"
    assert not view.has_ended
