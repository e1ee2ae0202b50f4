"""Characters that a provider cut in two."""

import pytest

from chat.llm.chunks import ChunkReader
from chat.llm.port import TextDelta
from chat.llm.sse_decoder import ServerEvent
from chat.llm.surrogates import SurrogateJoiner


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["plain", " text"], ["plain", " text"]),
        (["你好", "😀"], ["你好", "😀"]),
        (["a\ud83d", "\ude00b"], ["a", "😀b"]),
        (["\ud83d", "\ude00"], ["", "😀"]),
        (["\ud83d", "x"], ["", "\ufffdx"]),
        (["\ude00x"], ["\ufffdx"]),
        (["\ud83d\ud83d", "\ude00"], ["\ufffd", "😀"]),
        (["", "a"], ["", "a"]),
    ],
)
def test_feed_joins_the_halves_and_replaces_a_lone_one(pieces, shown):
    joiner = SurrogateJoiner()
    assert [joiner.feed(piece) for piece in pieces] == shown


def test_read_yields_text_that_can_be_stored_when_chunks_cut_a_character():
    reader = ChunkReader()
    data = '{"choices":[{"index":0,"delta":{"content":"%s"}}]}'
    events = [
        event
        for piece in (r"ok \ud83d", r"\ude00", r"\ud83d")
        for event in reader.read(ServerEvent(name="", data=(data % piece).encode()))
    ]
    assert events == [TextDelta("ok "), TextDelta("😀")]
