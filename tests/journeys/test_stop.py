"""A run is stopped from anywhere: what was said is kept and charged, and everybody who reads along is told."""

import time
from concurrent.futures import ThreadPoolExecutor

LONG = "A long story [[tokens=300 delay_ms=50]]"


def read_until_stopped(pool, reader, *, stop):
    """Send a long message and stop it after five events; the reading, the answer to the stop and what it took."""
    stopped = []

    def ask(reply):
        if len(reply.events) == 5:
            stopped.append(pool.submit(timed, lambda: stop(reply.run_id)))

    reply = reader.chat(LONG, on_event=ask)
    return reply, *stopped[0].result()


def timed(call):
    began = time.monotonic()
    return call(), time.monotonic() - began


def assert_stopped(stack, person, reply, answer):
    assert (answer.status_code, answer.json()["data"]) == (200, {"run_id": reply.run_id, "state": "stopped"})
    assert reply.done_count == 1
    assert reply.finish_reason == "stop"
    last = reply.chunks[-1]
    assert last["extra"]["status"] == {"code": "stopped"}
    assert last["extra"]["interrupt"]["type"] == "continue"
    reply.assert_gapless()
    said = person.timeline(reply.conversation_id)[-1]
    assert (said["content"], said["payload"]["state"]) == (reply.text, "stopped")
    assert said["tokens_consumed"] > 0
    stack.model.wait_until_open_count(0)


def test_stop_from_another_device_keeps_what_was_said(stack, alice):
    with ThreadPoolExecutor() as pool:
        reply, answer, seconds = read_until_stopped(pool, alice, stop=alice.at(stack.base_url).stop)

    assert_stopped(stack, alice, reply, answer)
    assert seconds < 1


def test_stop_from_another_process_keeps_what_was_said(stack, alice):
    with stack.second_web() as address, ThreadPoolExecutor() as pool:
        reply, answer, seconds = read_until_stopped(pool, alice, stop=alice.at(address).stop)

    assert_stopped(stack, alice, reply, answer)
    assert seconds < 2


def test_stop_twice_answers_the_same(stack, alice):
    with ThreadPoolExecutor() as pool:
        reply, answer, _seconds = read_until_stopped(pool, alice, stop=alice.at(stack.base_url).stop)

    again = alice.stop(reply.run_id)

    assert (again.status_code, again.json()) == (200, answer.json())


def test_stop_of_a_finished_run_changes_nothing(stack, alice):
    reply = alice.chat("Hello [[tokens=3]]")

    answer = alice.stop(reply.run_id)

    assert answer.json()["data"] == {"run_id": reply.run_id, "state": "finished"}
    assert alice.follow(reply.run_id).text == reply.text


def test_conversation_goes_on_after_a_stop(stack, alice):
    with ThreadPoolExecutor() as pool:
        reply, _answer, _seconds = read_until_stopped(pool, alice, stop=alice.at(stack.base_url).stop)

    alice.chat("Never mind", reply.conversation_id).assert_whole()


def test_stopped_answer_goes_on_when_asked(stack, alice):
    with ThreadPoolExecutor() as pool:
        reply, _answer, _seconds = read_until_stopped(pool, alice, stop=alice.at(stack.base_url).stop)

    more = alice.ask_again(reply.run_id, "continue")

    more.assert_whole()
    assert more.conversation_id == reply.conversation_id
    assert more.run_id != reply.run_id
    assert alice.ask_again(reply.run_id, "continue").body["status"] == "40913"


def test_last_answer_is_made_anew(stack, alice):
    first = alice.chat("Tell me [[tokens=5]]")

    second = alice.ask_again(first.run_id, "regenerate")

    second.assert_whole()
    assert second.run_id != first.run_id
    assert stack.last_body()["messages"][-1]["content"] == "Tell me [[tokens=5]]"
    assert len(stack.last_body()["messages"]) == len([m for m in stack.last_body()["messages"] if m["role"]])
    assert alice.follow(first.run_id).text == first.text
