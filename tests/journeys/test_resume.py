"""A reader that comes back gets exactly what it misses: by the id of its last event, from wherever it is known."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stack import wait_until
from tests.stack.fixtures import SERVICES

LONG = "Tell me [[tokens=60 delay_ms=50]]"
WHOLE = "".join(f"token {number} " for number in range(1, 61))


def after_events(count):
    return lambda reply: len(reply.events) >= count


def assert_completes(left, rest):
    """Both readings together are the answer, once."""
    assert rest.status == 200, rest.body
    rest.assert_gapless(after=int(left.ids[-1].split("-")[1]))
    assert left.text + rest.text == WHOLE
    assert (rest.snapshots, rest.finish_reason, rest.done_count) == ([], "stop", 1)


def test_reader_that_comes_back_in_the_middle_gets_exactly_the_missing_part(stack, alice):
    left = alice.chat(LONG, leave_when=after_events(5))

    rest = alice.follow(left.run_id, left.ids[-1])

    assert_completes(left, rest)
    # most of it was still to come, so it was read live
    assert len(rest.events) > 20


def test_after_in_the_address_is_the_same_as_the_header(stack, alice):
    left = alice.chat(LONG, leave_when=after_events(5))

    answer = alice.call("GET", f"/agent/runs/{left.run_id}/events?after={left.ids[-1]}")

    assert answer.headers["x-run-id"] == left.run_id
    assert f"id: {left.ids[-1]}\n" not in answer.text
    assert answer.text.count("data: [DONE]") == 1


def test_reader_comes_back_many_times_and_the_parts_are_the_whole(stack, alice):
    reply = alice.chat(LONG, leave_when=after_events(3))
    text, run_id = reply.text, reply.run_id

    while not reply.done_count:
        reply = alice.follow(run_id, reply.ids[-1], leave_when=after_events(7))
        text += reply.text

    assert text == WHOLE


def test_reader_that_comes_back_to_another_process_gets_exactly_the_missing_part(stack, alice):
    with stack.second_web() as address:
        left = alice.chat(LONG, leave_when=after_events(5))

        rest = alice.at(address).follow(left.run_id, left.ids[-1])
        again = alice.at(address).follow(left.run_id)

    assert_completes(left, rest)
    assert again.text == WHOLE


def test_second_device_reads_along_from_the_beginning(stack, alice):
    with stack.second_web() as address, ThreadPoolExecutor() as pool:
        others = []

        def open_others(reply):
            if len(reply.events) == 5:
                others.extend(
                    pool.submit(device.follow, reply.run_id) for device in (alice.at(address), alice.at(stack.base_url))
                )

        first = alice.chat(LONG, on_event=open_others)
        replies = [first, *(other.result() for other in others)]

    for reply in replies:
        reply.assert_whole()
        assert reply.text == WHOLE
    assert len(replies) == 3


def test_run_that_has_ended_is_answered_whole(stack, alice):
    first = alice.chat("Tell me [[tokens=10]]")

    whole = alice.follow(first.run_id)
    rest = alice.follow(first.run_id, first.ids[3])
    at_the_end = alice.follow(first.run_id, first.ids[-3])

    whole.assert_whole()
    assert whole.text == first.text
    assert rest.text == "".join(f"token {number} " for number in range(5, 11))
    assert (at_the_end.text, at_the_end.done_count, at_the_end.finish_reason) == ("", 1, "stop")


def test_position_that_never_was_is_answered_with_a_snapshot(stack, alice):
    first = alice.chat("Tell me [[tokens=10]]")

    for never in ("1-99999", "7-3"):
        reply = alice.follow(first.run_id, never)
        assert (reply.text, len(reply.snapshots), reply.done_count) == (first.text, 1, 1)
        assert reply.chunks[0]["extra"]["display_mode"] == "replace"


@pytest.mark.parametrize("given", ["345", "one-two", "1-2-3", "-1-5", "1-99999999999999"])
def test_position_that_is_none_is_refused_by_name(stack, alice, given):
    first = alice.chat("Hello [[tokens=1]]")

    by_header = alice.follow(first.run_id, given)
    by_address = alice.call("GET", f"/agent/runs/{first.run_id}/events?after={given}")

    assert (by_header.status, by_header.body["status"]) == (400, "40005")
    assert list(by_header.body["fields"]) == ["Last-Event-ID"]
    assert (by_address.status_code, list(by_address.json()["fields"])) == (400, ["after"])


def test_bob_sees_nothing_of_alices_run(stack, alice, bob):
    first = alice.chat("A secret [[tokens=2]]")

    for answer in (
        bob.call("GET", f"/agent/runs/{first.run_id}/events"),
        bob.stop(first.run_id),
        bob.call("POST", f"/agent/runs/{first.run_id}/regenerate"),
        bob.call("POST", f"/agent/runs/{first.run_id}/continue"),
        bob.call("GET", "/agent/runs/no-uuid/events"),
    ):
        assert (answer.status_code, answer.json()["status"]) == (404, "40402")


def test_errors_of_a_run_are_told_in_each_readers_language(stack, alice):
    first = alice.chat("Hello [[status=400]]", Accept_Language="en")

    chinese = alice.follow(first.run_id, Accept_Language="zh-CN")

    assert chinese.error["code"] == first.error["code"]
    assert chinese.error["message"] != first.error["message"]
    assert any("一" <= character <= "鿿" for character in chinese.error["message"])


@pytest.mark.parametrize("shared_stack", [SERVICES], indirect=True)
def test_log_that_has_expired_costs_a_reader_nothing(stack, alice):
    with stack.second_web() as address:
        left = alice.chat(LONG, leave_when=after_events(5))
        assert wait_until(stack.parts.forget_runs, 5, "a stream in Redis") >= 1

        here = alice.follow(left.run_id, left.ids[-1])
        assert stack.parts.forget_runs() >= 1
        elsewhere = alice.at(address).follow(left.run_id, left.ids[-1])

    assert_completes(left, here)
    assert_completes(left, elsewhere)


@pytest.mark.parametrize("shared_stack", [SERVICES], indirect=True)
def test_log_that_expires_in_mid_run_costs_a_reader_elsewhere_nothing(stack, alice):
    with stack.second_web() as address, ThreadPoolExecutor() as pool:
        left = alice.chat(LONG, leave_when=after_events(5))
        stack.parts.forget_runs()

        def forget(reply):
            if len(reply.events) == 10:
                stack.parts.forget_runs()

        following = pool.submit(alice.at(address).follow, left.run_id, left.ids[-1], on_event=forget)

        assert_completes(left, following.result())


@pytest.mark.parametrize("shared_stack", [SERVICES], indirect=True)
@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_redis_lost_in_mid_run_costs_no_text(stack, alice, fault):
    with stack.second_web() as address, ThreadPoolExecutor() as pool:
        elsewhere = []

        def lose(reply):
            if len(reply.events) == 3:
                elsewhere.append(pool.submit(alice.at(address).follow, reply.run_id))
            if len(reply.events) == 10:
                getattr(stack.parts.redis, fault)()
            if len(reply.events) == 40:
                stack.parts.redis.heal()

        here = alice.chat(LONG, on_event=lose)
        there = elsewhere[0].result()

    here.assert_whole()
    assert here.text == there.text == WHOLE
    assert (there.done_count, there.finish_reason) == (1, "stop")
    there.assert_gapless()
    # the pieces came one by one, with one pause of at most a moment
    moments = [event.at for event in here.events]
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 2
