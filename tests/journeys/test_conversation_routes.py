"""Naming, renaming, archiving, bringing back and deleting a conversation, and its variants, as its owner sees it."""

from chat.memory.titles import MOST_CHARACTERS

# what the scripted model answers to whoever asks for a title
TITLE = "token 1 token 2 token 3"[:MOST_CHARACTERS]


def test_conversation_gets_a_title_once_and_its_tokens_are_in_the_books(stack, alice):
    conversation_id = alice.chat("What is an eigenvalue?").conversation_id

    books = stack.wait_settled(alice, messages=2)

    meta = alice.meta(conversation_id)
    assert (meta["title"], meta["has_title"]) == (TITLE, True)
    assert sorted(entry["purpose"] for entry in books.ledger) == ["answer", "title"]
    told = [body["messages"][-1]["content"] for body in stack.model.seen()["titles"]]
    assert len([text for text in told if text.startswith("user: What is an eigenvalue?")]) == 1

    alice.chat("And a vector?", conversation_id).assert_whole()
    books = stack.wait_settled(alice, messages=4)
    assert sorted(entry["purpose"] for entry in books.ledger) == ["answer", "answer", "title"]


def test_context_stats_tell_how_full_the_memory_is(alice):
    conversation_id = alice.chat("Hello").conversation_id

    stats = alice.data(f"/agent/context-stats?conversation_id={conversation_id}")

    assert stats["total"] == sum(stats[f"msg{number}"] for number in range(4)) > 0
    assert stats["budget"] > stats["total"]


def test_conversation_is_renamed_archived_and_brought_back(stack, alice):
    conversation_id = alice.chat("Hello").conversation_id

    assert alice.change(conversation_id, title="  线性代数 📐 ").status_code == 200
    assert alice.change(conversation_id, status="archived").status_code == 200
    meta = alice.meta(conversation_id)
    assert (meta["title"], meta["has_title"], meta["status"]) == ("线性代数 📐", True, "archived")
    archived = alice.data("/agent/conversation-list?status=archived")["list"]
    assert [chat["conversation_id"] for chat in archived] == [conversation_id]
    assert alice.data("/agent/conversation-list?status=active")["list"] == []

    alice.chat("Are you still there?", conversation_id).assert_whole()
    assert alice.meta(conversation_id)["status"] == "active"
    stack.wait_settled(alice, messages=4)


def test_wrong_changes_are_refused(stack, alice):
    conversation_id = alice.chat("Hello").conversation_id

    for values in ({}, {"title": " "}, {"title": "x" * 256}, {"status": "deleted"}, {"titel": "typo"}):
        answer = alice.change(conversation_id, **values)
        assert answer.status_code == 400, values
        assert answer.json()["status"].startswith("400")
    stack.wait_settled(alice, messages=2)
    assert alice.meta(conversation_id)["title"] == TITLE


def test_deleted_conversation_is_gone_for_its_owner_and_stays_in_the_books(stack, alice):
    kept = alice.chat("Keep this").conversation_id
    gone = alice.chat("Delete this").conversation_id

    assert alice.delete(gone).status_code == 200

    assert [chat["conversation_id"] for chat in alice.conversations()] == [kept]
    refused = alice.chat("Hello?", gone)
    assert (refused.status, refused.body["status"]) == (404, "40401")
    for path in ("conversation-meta", "conversation-timeline", "context-stats"):
        assert alice.call("GET", f"/agent/{path}?conversation_id={gone}").status_code == 404
    assert alice.delete(gone).status_code == 404
    assert alice.change(gone, title="Back").status_code == 404
    stack.wait_settled(alice, messages=4)


def test_conversation_deleted_while_the_assistant_answers_is_still_counted(stack, alice):
    def delete(reply):
        if len(reply.events) == 2:
            assert alice.delete(reply.conversation_id).status_code == 200

    alice.chat("Hello [[tokens=20 delay_ms=20]]", on_event=delete).assert_whole()

    stack.wait_settled(alice, messages=2)
    assert alice.conversations() == []


def test_list_is_paged_with_the_latest_first(alice):
    ids = [alice.chat("Hello [[tokens=1]]").conversation_id for _ in range(3)]
    alice.chat("Again [[tokens=1]]", ids[0])

    first = alice.data("/agent/conversation-list?page=1&page_size=2")
    second = alice.data("/agent/conversation-list?page=2&page_size=2")

    assert [chat["conversation_id"] for chat in first["list"] + second["list"]] == [ids[0], ids[2], ids[1]]
    assert (first["total"], first["has_more"], second["has_more"]) == (3, True, False)
    assert second["page_size"] == second["limit"] == 2


def test_timeline_is_paged_back_and_forth(alice):
    conversation_id = alice.chat("One [[tokens=1]]").conversation_id
    alice.chat("Two [[tokens=1]]", conversation_id)

    whole = alice.timeline(conversation_id)
    earlier = alice.data(f"/agent/conversation-timeline?conversation_id={conversation_id}&before_seq=3")

    later = alice.data(f"/agent/conversation-timeline?conversation_id={conversation_id}&after_seq=2")
    assert [item["seq"] for item in whole] == [1, 2, 3, 4]
    assert (earlier, later) == (whole[:2], whole[2:])
