"""Bad input is answered as JSON before a stream begins, with the status that tells the truth; nothing is written."""

import json
from uuid import uuid4

import pytest

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def ask(alice):
    """Return a function that sends raw bytes as Alice and returns the answer."""

    def send(content, *, method="POST", **headers):
        sent = {"Authorization": f"Bearer {alice.token}", **JSON, **headers}
        return alice._http.request(method, "/api/v1/agent/chat", content=content, headers=sent)

    return send


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        pytest.param({"message": ""}, 400, "40004", id="empty-message"),
        pytest.param({"message": " \n\t "}, 400, "40004", id="blank-message"),
        pytest.param({}, 400, "40004", id="no-message"),
        pytest.param({"message": 7, "stream": True}, 400, "40005", id="unknown-field"),
        pytest.param({"message": ["a"]}, 400, "40005", id="message-is-a-list"),
        pytest.param({"message": "Hi", "conversation_id": "not-a-uuid"}, 400, "40005", id="not-a-uuid"),
        pytest.param({"message": "Hi", "model": "gpt-9"}, 400, "40005", id="unknown-model"),
        pytest.param({"message": "Hi", "conversation_id": str(uuid4())}, 404, "40401", id="unknown-conversation"),
        pytest.param({"message": "x" * (256 * 1024 + 1)}, 400, "40006", id="message-too-long"),
        pytest.param("[]", 400, "40005", id="not-an-object"),
        pytest.param('{"message": ', 400, "40005", id="broken-json"),
        pytest.param(b'{"message": "\xff"}', 400, "40005", id="not-utf-8"),
        pytest.param("[" * 100_000, 400, "40005", id="deeply-nested"),
        pytest.param("x" * (1024 * 1024 + 1), 413, "41300", id="body-too-large"),
    ],
)
def test_bad_body_is_refused(stack, alice, ask, content, status, code):
    raw = json.dumps(content) if isinstance(content, dict) else content

    answer = ask(raw, **{"X-Request-ID": "bad-input-1"})

    body = answer.json()
    assert (answer.status_code, body["status"]) == (status, code), body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == body["request_id"] == "bad-input-1"
    assert body["info"]
    assert "data" not in body
    books = stack.books(alice)
    assert (books.chats, books.runs, books.events) == ([], [], [])


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": ""}, 401, "40009"),
        ({"Authorization": "Bearer nonsense"}, 401, "40011"),
        ({"Content-Type": "text/plain"}, 415, "41500"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "41500"),
    ],
)
def test_bad_headers_are_refused(ask, headers, status, code):
    answer = ask('{"message": "Hi"}', **headers)

    assert (answer.status_code, answer.json()["status"]) == (status, code)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_refused_and_told_the_right_one(ask, method):
    answer = ask(b"", method=method)

    assert (answer.status_code, answer.json()["status"]) == (405, "40500")
    assert answer.headers["allow"] == "POST"


def test_signed_out_session_cannot_talk(alice):
    assert alice.call("POST", "/user/logout").status_code == 200

    refused = alice.chat("Hello?")

    assert (refused.status, refused.body["status"]) == (401, "40017")
