"""A client that goes away changes nothing: the run ends by itself and its answer is there."""

from tests.stack import wait_until


def test_client_that_leaves_finds_the_whole_answer_later(stack, alice):
    left = alice.chat("Tell me [[tokens=40 delay_ms=50]]", leave_when=lambda reply: len(reply.events) == 3)
    assert left.done_count == 0
    during = alice.timeline(left.conversation_id)
    assert during[0]["content"].startswith("Tell me")

    said = wait_until(
        lambda: [item for item in alice.timeline(left.conversation_id) if item["payload"].get("state") == "finished"],
        15,
        "a finished answer",
    )

    assert said[0]["content"] == "".join(f"token {number} " for number in range(1, 41))
    alice.chat("Thanks", left.conversation_id).assert_whole()
    assert stack.last_body()["messages"][1]["content"] == said[0]["content"]
    stack.wait_settled(alice, messages=4)


def test_many_clients_that_leave_at_once_leave_nothing_behind(stack, alice):
    for _ in range(8):
        alice.chat("Short [[tokens=10 delay_ms=20]]", leave_when=lambda reply: len(reply.events) == 1)

    stack.wait_settled(alice, messages=16)
    stack.model.wait_until_open_count(0)
    assert {run["state"] for run in stack.books(alice).runs} == {"finished"}
