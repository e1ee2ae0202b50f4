"""A wait ends at its deadline, and only then."""

import asyncio

import pytest

from chat.llm.silence import SilenceWatch


async def said(word: str, *, after: float = 0.0) -> str:
    await asyncio.sleep(after)
    return word


def in_seconds(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_wait_returns_what_comes_in_time() -> None:
    watch = SilenceWatch()
    for word in ("a", "b"):
        assert await watch.wait(said(word), deadline=in_seconds(5)) == word
    watch.close()


async def test_wait_raises_at_its_deadline_and_leaves_the_reader_uncancelled() -> None:
    watch, started = SilenceWatch(), in_seconds(0)
    with pytest.raises(TimeoutError):
        await watch.wait(asyncio.Event().wait(), deadline=in_seconds(0.05))
    assert 0.04 < in_seconds(0) - started < 2
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await said("still here", after=0.001) == "still here"


async def test_wait_cancels_what_it_waited_for() -> None:
    waiting = asyncio.ensure_future(asyncio.Event().wait())
    with pytest.raises(TimeoutError):
        await SilenceWatch().wait(waiting, deadline=in_seconds(0.01))
    assert waiting.cancelled()


async def test_wait_passes_over_the_deadline_of_an_earlier_wait() -> None:
    watch = SilenceWatch()
    assert await watch.wait(said("a"), deadline=in_seconds(0.05)) == "a"
    assert await watch.wait(said("b", after=0.2), deadline=in_seconds(5)) == "b"
    with pytest.raises(TimeoutError):
        await watch.wait(asyncio.Event().wait(), deadline=in_seconds(0.05))


async def test_wait_heeds_a_deadline_before_the_earlier_one() -> None:
    watch, started = SilenceWatch(), in_seconds(0)
    assert await watch.wait(said("a"), deadline=in_seconds(60)) == "a"
    with pytest.raises(TimeoutError):
        await watch.wait(asyncio.Event().wait(), deadline=in_seconds(0.05))
    assert in_seconds(0) - started < 5


async def test_wait_is_cut_short_at_once_when_its_deadline_has_passed() -> None:
    with pytest.raises(TimeoutError):
        await SilenceWatch().wait(asyncio.Event().wait(), deadline=in_seconds(-1))


async def test_nothing_is_cancelled_between_two_waits() -> None:
    watch = SilenceWatch()
    assert await watch.wait(said("a"), deadline=in_seconds(0.02)) == "a"
    await asyncio.sleep(0.1)
    assert await watch.wait(said("b"), deadline=in_seconds(5)) == "b"
    watch.close()


async def test_wait_lets_somebody_elses_cancel_through() -> None:
    watch = SilenceWatch()
    reader = asyncio.ensure_future(watch.wait(asyncio.Event().wait(), deadline=in_seconds(60)))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


async def test_wait_lets_somebody_elses_cancel_through_at_the_moment_of_the_deadline() -> None:
    watch = SilenceWatch()
    reader = asyncio.ensure_future(watch.wait(asyncio.Event().wait(), deadline=in_seconds(60)))
    await asyncio.sleep(0)
    watch._deadline = in_seconds(-1)
    watch._look()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


async def test_close_takes_the_timer_back() -> None:
    watch = SilenceWatch()
    await watch.wait(said("a"), deadline=in_seconds(60))
    timer = watch._timer
    watch.close()
    assert timer is not None
    assert timer.cancelled()
