"""The model server is down, slow, silent, cut, busy or broken: the student is told in words, nothing said is lost."""

from concurrent.futures import ThreadPoolExecutor

import pytest

FIVE = "".join(f"token {number} " for number in range(1, 6))


def assert_failed_turn(stack, person, reply, code, *, text=""):
    """The run failed with what was said, the timeline shows it, and the next turn goes through."""
    reply.assert_failed(code)
    assert reply.text == text
    asked, said = person.timeline(reply.conversation_id)
    assert asked["role"] == "user"
    assert (said["content"], said["payload"]["state"], said["payload"]["error_code"]) == (text, "failed", code)
    after = person.chat("And now?", reply.conversation_id)
    after.assert_whole()
    books = stack.wait_settled(person, messages=4 if text else 3)
    assert [run["state"] for run in books.runs] == ["failed", "finished"]


@pytest.mark.parametrize(
    ("scenario", "code", "text"),
    [
        pytest.param("cut after=5", "model_cut", FIVE, id="cut"),
        pytest.param("quiet_cut after=5", "model_cut", FIVE, id="ended-without-a-finish"),
        pytest.param("error=server_error after=5", "model_server_error", FIVE, id="error-in-the-stream"),
        pytest.param("status=500", "model_server_error", "", id="500"),
        pytest.param("status=429", "model_rate_limited", "", id="429-for-ever"),
        pytest.param("status=401", "model_refused_credentials", "", id="401"),
        pytest.param("not_sse=html", "model_bad_response", "", id="a-web-page"),
    ],
)
def test_broken_answer_fails_in_words_and_keeps_what_was_said(stack, alice, scenario, code, text):
    reply = alice.chat(f"Tell me [[{scenario} key={alice.username}]]")

    assert_failed_turn(stack, alice, reply, code, text=text)


def test_rate_limit_that_passes_is_waited_out(stack, alice):
    reply = alice.chat(f"Tell me [[status=429 times=1 key={alice.username}]]")

    reply.assert_whole()
    stack.wait_settled(alice, messages=2)


def test_server_that_is_down_fails_in_words(stack, alice):
    with stack.model_down():
        reply = alice.chat("Is anybody there?")

    assert_failed_turn(stack, alice, reply, "model_unreachable")


def test_slow_and_silent_models_are_covered_by_pings(stack, alice, bob):
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(alice.chat, "Think first [[first_ms=6000]]")
        stalled = pool.submit(bob.chat, "Fall silent [[stall after=5]]")
        late, silent = slow.result(), stalled.result()

    late.assert_whole()
    for reply in (late, silent):
        assert reply.pings
        assert reply.longest_silence() < 5.5
    stack.wait_settled(alice, messages=2)
    assert_failed_turn(stack, bob, silent, "model_timeout", text=FIVE)


def test_absent_usage_is_estimated_and_marked(stack, alice):
    reply = alice.chat("Tell me [[usage=none text=zh tokens=40]]")

    reply.assert_whole()
    books = stack.wait_settled(alice, messages=2)
    run = books.runs[0]
    assert run["is_usage_estimated"] == 1
    assert run["completion_tokens"] >= 36
    assert run["prompt_tokens"] > 0
    assert run["total_tokens"] == run["prompt_tokens"] + run["completion_tokens"] <= books.token_usage


def test_thoughts_of_the_model_are_no_part_of_the_answer(stack, alice):
    reply = alice.chat("Think [[reasoning=5 tokens=3]]")

    reply.assert_whole()
    assert reply.text == "token 1 token 2 token 3 "
    assert alice.timeline(reply.conversation_id)[1]["content"] == reply.text
    assert stack.books(alice).runs[0]["completion_tokens"] == 8
