"""Bob knows the id of Alice's conversation. To him it does not exist, on any route, and he learns nothing."""

import pytest

SECRET = "Alice's secret plan"


@pytest.fixture
def conversation_id(alice):
    reply = alice.chat(f"{SECRET} [[text=echo]]")
    assert alice.change(reply.conversation_id, title=SECRET).status_code == 200
    return reply.conversation_id


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/agent/chat", {"message": "Hi", "conversation_id": "{id}"}),
        ("GET", "/agent/conversation-meta?conversation_id={id}", None),
        ("GET", "/agent/conversation-timeline?conversation_id={id}", None),
        ("GET", "/agent/context-stats?conversation_id={id}", None),
        ("PATCH", "/agent/conversations/{id}", {"title": "Bob was here"}),
        ("PATCH", "/agent/conversations/{id}", {"status": "archived"}),
        ("DELETE", "/agent/conversations/{id}", None),
    ],
)
def test_conversation_of_another_user_does_not_exist(alice, bob, conversation_id, method, path, body):
    before = (alice.timeline(conversation_id), alice.meta(conversation_id)["title"])
    sent = {key: value.format(id=conversation_id) for key, value in body.items()} if body else None

    answer = bob.call(method, path.format(id=conversation_id), sent)
    unknown = "00000000-0000-4000-8000-000000000000"
    for_unknown = bob.call(
        method,
        path.format(id=unknown),
        {key: value.format(id=unknown) for key, value in body.items()} if body else None,
    )

    assert (answer.status_code, answer.json()["status"]) == (404, "40401")
    assert {**answer.json(), "request_id": ""} == {**for_unknown.json(), "request_id": ""}
    assert SECRET not in answer.text
    assert alice.username not in answer.text
    assert (alice.timeline(conversation_id), alice.meta(conversation_id)["title"]) == before


@pytest.mark.parametrize(("method", "action"), [("GET", "variants"), ("POST", "select")])
def test_answer_of_another_user_does_not_exist(alice, bob, conversation_id, method, action):
    run_id = alice.timeline(conversation_id)[1]["payload"]["run_id"]
    assert alice.call("GET", f"/agent/runs/{run_id}/variants").status_code == 200

    answer = bob.call(method, f"/agent/runs/{run_id}/{action}")
    for_unknown = bob.call(method, f"/agent/runs/00000000-0000-4000-8000-000000000000/{action}")

    assert (answer.status_code, answer.json()["status"]) == (404, "40402")
    assert {**answer.json(), "request_id": ""} == {**for_unknown.json(), "request_id": ""}
    assert SECRET not in answer.text


def test_list_shows_own_conversations_only(alice, bob, conversation_id):
    mine = bob.chat("Hello").conversation_id

    assert [chat["conversation_id"] for chat in bob.conversations()] == [mine]
    assert [chat["conversation_id"] for chat in alice.conversations()] == [conversation_id]


def test_memory_of_one_user_never_reaches_another(stack, alice, bob, conversation_id):
    bob.chat("What do you know of Alice?")

    assert stack.last_body()["messages"] == [{"role": "user", "content": "What do you know of Alice?"}]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/agent/conversation-meta?conversation_id={id}"),
        ("GET", "/agent/conversation-timeline?conversation_id={id}"),
        ("GET", "/agent/context-stats?conversation_id={id}"),
        ("GET", "/agent/runs/{id}/variants"),
        ("POST", "/agent/runs/{id}/select"),
        ("GET", "/agent/conversation-list"),
        ("PATCH", "/agent/conversations/{id}"),
        ("DELETE", "/agent/conversations/{id}"),
        ("POST", "/agent/chat"),
    ],
)
def test_nobody_without_a_token_sees_anything(alice, bob, conversation_id, method, path):
    bob.token = ""

    answer = bob.call(method, path.format(id=conversation_id), {"message": "Hi"} if method == "POST" else None)

    assert answer.status_code in (401, 415)
    assert SECRET not in answer.text
