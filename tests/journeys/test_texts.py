"""What people really write: Chinese, emoji, long texts, line breaks. Nothing is changed on its way."""

import pytest

from chat.memory.budget import estimate_text

EMOJI = "周三👍🏽和👩‍👩‍👧去🗓️图书馆📚🎉"
LINES = 'Zeile "eins"\r\n\tzwei\u2028drei \\n <b>&amp;</b> data: x\n\nid: 7\n\n'


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(f"明天上午有什么课？{EMOJI}", id="chinese-and-emoji"),
        pytest.param(f"  {LINES}  ", id="line-breaks-and-markup"),
        pytest.param("长文本：" + "每天早上八点半在三号楼上高等数学课。" * 600, id="30-KB"),
        pytest.param("a" * 30_000, id="30-KB-without-a-blank"),
    ],
)
def test_text_comes_back_as_it_was_written(stack, alice, message):
    message += "[[text=echo]]"

    reply = alice.chat(message)

    reply.assert_whole()
    assert reply.text == message
    asked, said = alice.timeline(reply.conversation_id)
    assert asked["content"] == said["content"] == message
    assert stack.last_body()["messages"][-1] == {"role": "user", "content": message}
    books = stack.wait_settled(alice, messages=2)
    assert [history["message_content"] for history in books.histories] == [message, message]


def test_emoji_that_span_tokens_arrive_whole(stack, alice):
    reply = alice.chat("Wann? [[text=emoji tokens=60 split=3]]")

    reply.assert_whole()
    assert "👩‍👩‍👧" in reply.text
    assert alice.timeline(reply.conversation_id)[1]["content"] == reply.text
    assert estimate_text(reply.text) > 0
