"""A web process that ends gives back what has said nothing: another one answers it, and its reader finds it there."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.stack import wait_until


def test_web_that_ends_hands_a_silent_run_to_another(stack, alice):
    with stack.second_web() as address, ThreadPoolExecutor() as pool:
        reading = pool.submit(alice.chat, "Think first [[first_ms=3000 tokens=5]]")
        wait_until(lambda: stack.model.open_count() == 1, 10, "a question to the model")
        stack.stop("web")
        left = reading.result()
        stopped_at = time.monotonic()
        rest = alice.at(address).follow(left.run_id, left.ids[-1] if left.ids else "")

    rest.assert_whole()
    assert left.text == ""
    assert left.done_count == 0
    assert time.monotonic() - stopped_at < 10
    (run,) = stack.books(alice).runs
    assert (run["state"], run["attempt"], run["epoch"], run["output_text"]) == ("finished", 1, 2, rest.text)
    stack.start("web")
    stack.wait_settled(alice, messages=2)


def test_web_that_is_started_again_answers_what_was_given_back(stack, alice):
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(alice.chat, "Think first [[first_ms=3000 tokens=5]]")
        wait_until(lambda: stack.model.open_count() == 1, 10, "a question to the model")
        stack.restart("web")
        left = reading.result()

    rest = alice.follow(left.run_id)

    rest.assert_whole()
    (run,) = stack.books(alice).runs
    assert (run["state"], run["output_text"]) == ("finished", rest.text)
    stack.wait_settled(alice, messages=2)
