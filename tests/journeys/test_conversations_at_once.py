"""Several answers at the same time: apart where they are apart, one at a time within a conversation."""

from concurrent.futures import ThreadPoolExecutor

from tests.stack import wait_until


def test_two_conversations_at_once_do_not_mix(stack, alice, bob):
    def talk(person, words):
        first = person.chat(f"{words} [[text=echo delay_ms=20]]")
        return [first, person.chat(f"{words} again [[text=echo delay_ms=20]]", first.conversation_id)]

    with ThreadPoolExecutor(3) as pool:
        asked = [
            (alice, "Alice asks about algebra"),
            (bob, "Bob asks about biology"),
            (alice, "Alice asks about art"),
        ]
        answered = list(pool.map(lambda pair: talk(*pair), asked))

    for (person, words), replies in zip(asked, answered, strict=True):
        for reply in replies:
            reply.assert_whole()
            assert reply.text.startswith(words)
        contents = [item["content"] for item in person.timeline(replies[0].conversation_id)]
        assert len(contents) == 4
        assert all(content.startswith(words) for content in contents)
    assert len({reply.conversation_id for replies in answered for reply in replies}) == 3
    stack.wait_settled(alice, messages=8)
    stack.wait_settled(bob, messages=4)


def test_second_message_is_refused_while_the_assistant_still_answers(stack, alice):
    opened = alice.chat("Hello")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(alice.chat, "Think [[tokens=30 delay_ms=50]]", opened.conversation_id)
        wait_until(lambda: any(run["is_live"] for run in stack.books(alice).runs), 5, "a live run")
        refused = alice.chat("And another thing", opened.conversation_id)
        elsewhere = alice.chat("A different matter")
        slow.result().assert_whole()

    assert (refused.status, refused.body["status"]) == (409, "40910")
    assert "data" not in refused.body
    elsewhere.assert_whole()
    alice.chat("Now?", opened.conversation_id).assert_whole()
    asked = [item["content"] for item in alice.timeline(opened.conversation_id) if item["role"] == "user"]
    assert asked == ["Hello", "Think [[tokens=30 delay_ms=50]]", "Now?"]
    stack.wait_settled(alice, messages=8)


def test_thirty_turns_at_once_are_all_answered_and_all_counted(stack):
    people = [stack.invite() for _ in range(5)]
    with ThreadPoolExecutor(30) as pool:
        opened = list(pool.map(lambda person: (person, person.chat("First [[tokens=3]]")), people * 6))
        again = list(pool.map(lambda pair: pair[0].chat("Second [[tokens=3]]", pair[1].conversation_id), opened))

    for reply in (*(reply for _, reply in opened), *again):
        reply.assert_whole()
    for person in people:
        # thirty titles too; one whose first job came to nothing is made by another 20 s later
        stack.wait_settled(person, messages=24, within_seconds=40)
