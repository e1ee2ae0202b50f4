"""Restart everything: the conversation is complete, and the assistant remembers it."""


def test_everything_restarted_keeps_the_conversation_and_the_memory(stack, alice):
    first = alice.chat("My name is Alice [[text=zh]]")
    second = alice.chat("I study chemistry", first.conversation_id)
    stack.restart("web", "worker", "consumer")

    before = alice.timeline(first.conversation_id)
    third = alice.chat("What is my name?", first.conversation_id)

    third.assert_whole()
    assert [item["content"] for item in before] == [
        "My name is Alice [[text=zh]]",
        first.text,
        "I study chemistry",
        second.text,
    ]
    assert stack.last_body()["messages"] == [
        *({"role": item["role"], "content": item["content"]} for item in before),
        {"role": "user", "content": "What is my name?"},
    ]
    assert alice.timeline(first.conversation_id)[:4] == before
    stack.wait_settled(alice, messages=6)


def test_web_stopped_gently_ends_its_stream_in_words(stack, alice):
    def stop(reply):
        if len(reply.events) == 5:
            stack.processes["web"].ask_to_end()

    reply = alice.chat("A long story [[tokens=400 delay_ms=50]]", on_event=stop)
    stack.stop("web")
    stack.start("web")

    reply.assert_failed("run_interrupted")
    said = alice.timeline(reply.conversation_id)[1]
    assert (said["payload"]["state"], said["content"]) == ("failed", reply.text)
    alice.chat("Go on", reply.conversation_id).assert_whole()
    stack.wait_settled(alice, messages=4)
