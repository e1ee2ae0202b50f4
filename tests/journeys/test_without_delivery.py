"""Relay and consumer are down for five turns: nobody who talks notices, and the counters catch up exactly."""


def test_five_turns_without_relay_and_consumer_are_complete_and_counted_later(stack, alice):
    stack.stop("worker", "consumer")

    conversation_id, replies = "", []
    for number in range(1, 6):
        reply = alice.chat(f"Turn {number} [[tokens={number}]]", conversation_id)
        reply.assert_whole()
        conversation_id = reply.conversation_id
        replies.append(reply)
        said = [{"role": "user", "content": f"Turn {n} [[tokens={n}]]"} for n in range(1, number + 1)]
        answers = [{"role": "assistant", "content": earlier.text} for earlier in replies[:-1]]
        expected = [message for pair in zip(said, answers, strict=False) for message in pair] + said[-1:]
        assert stack.last_body()["messages"] == expected

    timeline = alice.timeline(conversation_id)
    assert [item["content"] for item in timeline if item["role"] == "assistant"] == [reply.text for reply in replies]
    assert alice.conversations()[0]["conversation_id"] == conversation_id
    meta = alice.meta(conversation_id)
    assert meta["message_count"] == 0
    books = stack.books(alice)
    # of each turn the question, the answer and the state behind it
    assert (books.states, books.histories, books.token_usage) == ({"pending": 15}, [], 0)

    stack.start("worker", "consumer")
    settled = stack.wait_settled(alice, messages=10)
    titles = sum(entry["total_tokens"] for entry in settled.ledger if entry["purpose"] == "title")
    assert settled.token_usage - titles == sum(run["total_tokens"] for run in books.runs) > 0
    assert alice.meta(conversation_id)["message_count"] == 10
    assert alice.timeline(conversation_id) == timeline
