"""Decoding of server-sent events from bytes that are cut anywhere."""

import pytest

from chat.llm import sse_decoder
from chat.llm.sse_decoder import EventTooLong, ServerEvent, SseDecoder


def decoded(body: bytes, *, size: int) -> list[ServerEvent]:
    decoder = SseDecoder()
    events = [event for start in range(0, len(body), size) for event in decoder.feed(body[start : start + size])]
    return events + decoder.finish()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_feed_gives_the_same_events_however_the_bytes_are_cut(size: int, line_end: str) -> None:
    body = 'data: {"a":"课👍🏽"}\n\n: ping\n\nevent: error\ndata: x\ndata:y\n\ndata: [DONE]\n\n'
    expected = [
        ServerEvent("", '{"a":"课👍🏽"}'.encode()),
        ServerEvent("error", b"x\ny"),
        ServerEvent("", b"[DONE]"),
    ]
    assert decoded(body.replace("\n", line_end).encode(), size=size) == expected


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_feed_follows_a_body_that_changes_its_line_ends(size: int) -> None:
    body = b'data: {"a":1}\n\ndata: {"b":\r\ndata: 2}\r\n\r\ndata: {"c":3}\n\n\ndata: {"d":4}\r\r'
    assert [event.data for event in decoded(body, size=size)] == [b'{"a":1}', b'{"b":\n2}', b'{"c":3}', b'{"d":4}']


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_feed_joins_the_lines_of_one_event(size: int) -> None:
    body = b'data: {"a":\ndata: 1}\n\ndata: {"b":2}\nid: 9\n\nid: 10\ndata: {"c":3}\n\n'
    assert [event.data for event in decoded(body, size=size)] == [b'{"a":\n1}', b'{"b":2}', b'{"c":3}']


def test_feed_ignores_events_without_data() -> None:
    assert decoded(b"id: 4\n\nevent: ping\n\nretry: 10\n\ndata\n\n:\n\n", size=5) == []


def test_finish_completes_an_event_without_its_blank_line() -> None:
    assert decoded(b"data: last", size=4) == [ServerEvent("", b"last")]


@pytest.mark.parametrize("half", ["d", "da", "dat", "data"])
def test_finish_takes_the_beginning_of_a_field_for_no_foreign_line(half: str) -> None:
    decoder = SseDecoder()
    assert decoder.feed(half.encode()) + decoder.finish() == []
    assert decoder.foreign_line_count == 0


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_feed_leaves_a_byte_order_mark_out(size: int) -> None:
    assert decoded(b'\xef\xbb\xbfdata: {"a":1}\n\n', size=size) == [ServerEvent("", b'{"a":1}')]


def test_feed_gives_an_event_as_soon_as_it_is_complete() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [ServerEvent("", b"a")]


def test_foreign_line_count_tells_a_body_that_is_no_event_stream() -> None:
    decoder = SseDecoder()
    decoder.feed(b"<html>\n<body>\n")
    decoder.feed(b'{"ok": true}')
    decoder.finish()
    assert decoder.foreign_line_count == 3


@pytest.mark.parametrize("line", [b"x" * 40, b"data: " + b"x" * 20 + b"\n"])
def test_feed_refuses_an_endless_event(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_decoder, "MAX_EVENT_BYTES", 100)
    with pytest.raises(EventTooLong, match="100 bytes"):
        decoded(line * 10, size=len(line))
