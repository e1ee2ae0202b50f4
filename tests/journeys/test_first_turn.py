"""Register, sign in, talk: what the first minutes of a student look like, and what the books say of it."""

from datetime import datetime
from uuid import UUID

from tests.stack import Person


def test_student_registers_signs_in_and_talks_and_is_counted_once(stack):
    alice = stack.sign_up("a-newcomer")
    reply = alice.chat("What is on tomorrow? [[tokens=12]]")

    reply.assert_whole()
    assert reply.text == "".join(f"token {number} " for number in range(1, 13))
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.chunks[0]["object"] == "chat.completion.chunk"
    assert reply.chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["id"] for chunk in reply.chunks} == {reply.run_id}
    assert UUID(reply.conversation_id)
    assert UUID(reply.run_id)

    books = stack.wait_settled(alice, messages=2)
    run = books.runs[0]
    usage = run["prompt_tokens"] + run["completion_tokens"]
    assert (run["state"], run["completion_tokens"], run["is_usage_estimated"]) == ("finished", 12, 0)
    (title,) = [entry["total_tokens"] for entry in books.ledger if entry["purpose"] == "title"]
    assert [history["tokens_consumed"] for history in books.histories] == [0, usage + title]
    assert books.token_usage == usage + title
    meta = alice.meta(reply.conversation_id)
    assert (meta["message_count"], meta["status"], meta["has_title"]) == (2, "active", True)


def test_timeline_shows_the_turn_as_soon_as_it_is_done(alice):
    reply = alice.chat("Hello")

    asked, said = alice.timeline(reply.conversation_id)

    assert (asked["kind"], asked["role"], asked["content"], asked["seq"]) == ("user_text", "user", "Hello", 1)
    assert (said["kind"], said["content"], said["seq"]) == ("assistant_text", reply.text, 2)
    assert said["payload"]["state"] == "finished"
    assert asked["payload"]["run_id"] == said["payload"]["run_id"] == reply.run_id
    assert asked["tokens_consumed"] == 0
    assert said["tokens_consumed"] > 0
    assert datetime.fromisoformat(asked["created_at"]) <= datetime.fromisoformat(said["created_at"])
    assert [chat["conversation_id"] for chat in alice.conversations()] == [reply.conversation_id]


def test_request_id_of_the_client_is_kept_in_answer_run_and_events(stack, alice):
    reply = alice.chat("Hello", X_Request_ID="journey-0001")

    assert reply.headers["x-request-id"] == "journey-0001"
    assert stack.books(alice).runs[0]["request_id"] == "journey-0001"
    rows = stack.rows("SELECT request_id FROM agent_outbox_messages WHERE message_key = ?", reply.conversation_id)
    assert {row["request_id"] for row in rows} == {"journey-0001"}
    assert alice.chat("Again", reply.conversation_id).headers["x-request-id"] not in ("", "journey-0001")


def test_second_session_of_the_same_user_sees_the_same_conversation(stack):
    alice = stack.sign_up("alice-with-a-phone")
    reply = alice.chat("Hello")
    phone = Person(stack.base_url, alice.username)
    try:
        phone.sign_in()
        assert phone.timeline(reply.conversation_id) == alice.timeline(reply.conversation_id)
    finally:
        phone.close()
