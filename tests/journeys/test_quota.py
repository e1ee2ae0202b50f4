"""A student's weekly tokens, through the front door: never more than the limit, however many ask at once."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx2

from tests.stack import wait_until

REQUESTS = 200
ROOM_FOR = 10
# Longer than the test: an answer that ended would free what it did not need. They are stopped instead.
MESSAGE = "Tell me a story [[tokens=400 delay_ms=300]]"
HEADERS = {"Content-Type": "application/json"}


def give(stack, person, limit):
    change = f"User.objects.filter(pk={person.user_id}).update(token_limit={limit})"
    stack.manage("shell", "-c", f"from smartflow.accounts.models import User; {change}")


def window_of(stack, person):
    (window,) = stack.rows("SELECT used_tokens, held_tokens FROM token_windows WHERE user_id = ?", person.user_id)
    return window["used_tokens"], window["held_tokens"]


def ask_and_leave(stack, person, client):
    """Send a message, look at the answer's head alone, and go: the run goes on without its reader."""
    body = json.dumps({"message": MESSAGE}).encode()
    headers = {**HEADERS, "Authorization": f"Bearer {person.token}"}
    url = f"{stack.base_url}/api/v1/agent/chat"
    with client.stream("POST", url, content=body, headers=headers) as answer:
        if answer.headers["content-type"].startswith("text/event-stream"):
            return answer.status_code, {}
        return answer.status_code, json.loads(answer.read())


def test_two_hundred_requests_at_once_with_room_for_ten_never_pass_the_limit(stack, alice):
    one = alice.chat("How much is one? [[tokens=120]]")
    one.assert_whole()
    # its title is charged a moment later
    wait_until(lambda: len(stack.books(alice).ledger) == 2, 15, "the title's tokens")
    used, _held = window_of(stack, alice)
    held_for_one = stack.rows("SELECT held_tokens FROM chat_runs WHERE id = ?", one.run_id)[0]["held_tokens"]
    limit = used + ROOM_FOR * (held_for_one + 20)
    give(stack, alice, limit)

    at_once = httpx2.Limits(max_connections=REQUESTS)
    with httpx2.Client(timeout=60, limits=at_once, trust_env=False) as client, ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(lambda _n: ask_and_leave(stack, alice, client), range(REQUESTS)))

    counts = Counter(status for status, _body in answers)
    assert set(counts) == {200, 429}
    assert counts[200] == ROOM_FOR
    refused = next(body for status, body in answers if status == 429)
    assert refused["status"] == "40051"
    admitted = stack.books(alice).runs[1:]
    wait_until(lambda: all(run["output_text"] for run in stack.books(alice).runs), 15, "a word of each answer")
    for run in admitted:
        assert alice.stop(run["id"]).status_code == 200
    stack.wait_settled(alice, messages=2 + 2 * ROOM_FOR)
    assert used + sum(run["total_tokens"] for run in stack.books(alice).runs[1:]) <= limit
    # titles come in their own time, and are charged whatever is left
    wait_until(lambda: window_of(stack, alice) == (stack.books(alice).token_usage, 0), 30, "books that agree")


def test_refusal_says_what_is_left_and_when_it_resets_and_nothing_is_written(stack, alice):
    give(stack, alice, 100)

    refused = alice.chat("A question that needs more than is left")

    assert (refused.status, refused.body["status"]) == (429, "40051")
    assert int(refused.headers["retry-after"]) > 0
    assert refused.body["left"] == 100
    assert datetime.fromisoformat(refused.body["resets_at"]).tzinfo is not None
    assert stack.books(alice).runs == []
    assert alice.conversations() == []


def test_quota_shows_what_was_used_and_by_what(stack, alice):
    reply = alice.chat("Hello [[tokens=30]]")
    books = stack.wait_settled(alice, messages=2)

    quota = alice.data("/user/quota")

    total = quota["used"]
    assert total >= books.runs[0]["total_tokens"] > 0
    assert (quota["limit"], quota["used"], quota["held"], quota["left"]) == (100_000, total, 0, 100_000 - total)
    by_purpose = {row["purpose"]: row["tokens"] for row in quota["used_by_purpose"]}
    assert by_purpose["answer"] == books.runs[0]["total_tokens"]
    assert [row["conversation_id"] for row in quota["used_by_conversation"]] == [reply.conversation_id]


def test_long_answer_ends_in_words_when_the_quota_does(stack, alice):
    give(stack, alice, 800)

    reply = alice.chat("Write without end [[tokens=3000 delay_ms=1]]")

    reply.assert_failed("40051")
    assert reply.text
    stack.wait_settled(alice, messages=2)
    used, held = window_of(stack, alice)
    assert (held, used > 100) == (0, True)
