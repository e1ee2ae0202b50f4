"""A page of another origin talks to the server: the browser's question, then the request itself."""

import pytest

OURS, THEIRS = "https://app.example.edu", "https://evil.example"


@pytest.mark.parametrize("path", ["/agent/chat", "/agent/conversation-list"])
def test_a_page_of_an_allowed_origin_may_ask_on_both_kinds_of_routes(alice, path):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    preflight = alice.call("OPTIONS", path, Origin=OURS, **asked)
    refused = alice.call("OPTIONS", path, Origin=THEIRS, **asked)

    assert (preflight.status_code, preflight.content) == (200, b"")
    assert preflight.headers["access-control-allow-origin"] == OURS
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in refused.headers


def test_a_page_of_an_allowed_origin_may_read_a_stream(alice):
    stream = alice.call("POST", "/agent/chat", {"message": "Hi"}, Origin=OURS)
    elsewhere = alice.call("POST", "/agent/chat", {"message": "Hi"}, Origin=THEIRS)

    assert stream.text.rstrip().endswith("[DONE]")
    assert stream.headers["access-control-allow-origin"] == OURS
    assert "x-conversation-id" in stream.headers["access-control-expose-headers"]
    assert stream.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in elsewhere.headers


def test_a_page_of_an_allowed_origin_may_read_an_error(alice):
    error = alice.call("POST", "/agent/chat", {"message": ""}, Origin=OURS)
    assert (error.status_code, error.headers["access-control-allow-origin"]) == (400, OURS)
