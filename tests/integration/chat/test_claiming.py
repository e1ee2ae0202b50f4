"""Runs without an owner: who takes them, who must not, and how those end that nobody may take."""

import asyncio
import socket
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic

import pytest

from chat.contracts import RunProgress, RunState
from chat.models import ChatRun
from chat.operations import INTERRUPTED, RecoveredText, WaitingRun, release_run, request_stop, save_progress
from chat.runs import claiming
from chat.runs.claiming import RunClaimer
from chat.runs.hints import ANSWER_SECONDS
from chat.runs.recovery import Recovery
from chat.runs.stopping import StopWatch
from chat.runs.sweeping import end_orphans
from smartflow.kernel.clock import utc_now
from tests.factories import make_user
from tests.integration.chat.executing import END, SteppedModel, process, until
from tests.integration.chat.turns import LEASE_SECONDS, ask

pytestmark = pytest.mark.django_db(transaction=True)


@asynccontextmanager
async def claiming_in(bench, *, owner="claimer:2:0", poll_seconds=0.02, clock=utc_now):
    """Let the process claim runs."""
    claimer = RunClaimer(
        executor=bench.executor,
        database=bench.database,
        clock=clock,
        owner=owner,
        lease_seconds=LEASE_SECONDS,
        poll_seconds=poll_seconds,
    )
    work = asyncio.ensure_future(claimer.work())
    try:
        yield claimer
    finally:
        claimer.end()
        await work


def lose_owner(run, *, seconds_ago=1.0):
    """Let the run's lease have ended."""
    ChatRun.objects.filter(id=run.run_id).update(lease_until=utc_now() - timedelta(seconds=seconds_ago))


async def test_queued_run_is_taken_and_answered(alice):
    async with process(SteppedModel(["Hi", END])) as bench:
        run = await bench.run(ask, user=alice, owner="")
        async with claiming_in(bench):
            await until(lambda: bench.model.requests and not bench.executor.live_count)
        row = await bench.run(ChatRun.objects.get)

    assert (row.state, row.output_text, row.owner, row.epoch, row.attempt) == (
        RunState.FINISHED,
        "Hi",
        "claimer:2:0",
        1,
        1,
    )
    assert row.id == run.run_id


async def test_claimer_takes_no_more_than_there_is_room_for(alice, bob):
    async with process(SteppedModel(), max_live_runs=1) as bench:
        await bench.run(ask, user=alice, owner="")
        await bench.run(ask, user=bob, owner="")
        async with claiming_in(bench):
            await until(lambda: bench.model.requests)
            owned = await bench.run(lambda: ChatRun.objects.exclude(owner="").count())
            bench.model.put(END, END)
            await until(lambda: len(bench.model.requests) == 2)

    assert owned == 1


async def test_silent_run_of_a_dead_owner_is_executed_again_as_another_attempt(alice, monkeypatch):
    monkeypatch.setattr(claiming, "SUSPICION_SECONDS", 0.05)
    async with process(SteppedModel(["Again", END])) as bench:
        run = await bench.run(ask, user=alice)
        await bench.run(lose_owner, run=run)
        async with claiming_in(bench):
            await until(lambda: bench.model.requests and not bench.executor.live_count)
        row = await bench.run(ChatRun.objects.get)

    assert (row.state, row.output_text, row.attempt, row.epoch) == (RunState.FINISHED, "Again", 2, 2)


async def test_owner_that_renews_its_lease_after_an_outage_keeps_its_run(alice, monkeypatch):
    monkeypatch.setattr(claiming, "SUSPICION_SECONDS", 0.2)
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        await bench.run(lose_owner, run=run)
        async with claiming_in(bench) as claimer:
            await until(lambda: claimer._suspects)
            progress = RunProgress(text="")
            await bench.run(save_progress, saves=[(run, progress)], lease_seconds=LEASE_SECONDS, now=utc_now())
            await until(lambda: not claimer._suspects)
        row = await bench.run(ChatRun.objects.get)

    assert bench.model.requests == []
    assert (row.owner, row.epoch) == (run.owner, 1)


async def test_what_readers_of_a_dead_owner_have_seen_is_never_said_anew(alice, monkeypatch):
    monkeypatch.setattr(claiming, "SUSPICION_SECONDS", 0.05)
    seen = RecoveredText(text="Seen by all", events=())
    monkeypatch.setattr(Recovery, "of", lambda _self, _waiting: seen)
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        await bench.run(lose_owner, run=run)
        async with claiming_in(bench):
            async with asyncio.timeout(10):
                while (await bench.run(ChatRun.objects.get)).is_live:
                    await asyncio.sleep(0.01)
        row = await bench.run(ChatRun.objects.get)

    assert bench.model.requests == []
    assert (row.state, row.error_code, row.output_text, row.attempt) == (
        RunState.FAILED,
        INTERRUPTED,
        "Seen by all",
        1,
    )
    assert row.total_tokens > 0


async def test_hint_wakes_a_claimer_that_would_look_much_later(alice):
    async with process(SteppedModel(["Hi", END])) as bench, claiming_in(bench, poll_seconds=600) as claimer:
        await asyncio.sleep(0)
        run = await bench.run(ask, user=alice)
        await bench.run(release_run, run=run, is_blank=True, now=utc_now())
        claimer.wake()
        await until(lambda: bench.model.requests)


async def test_stop_watch_ends_runs_that_somebody_asked_to_stop(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        bench.model.put("So far")
        await until(lambda: log.text)
        watch = StopWatch(executor=bench.executor, database=bench.database, owner=run.owner, poll_seconds=0.02)
        work = asyncio.ensure_future(watch.work())
        await bench.run(request_stop, user_id=alice.pk, run_id=run.run_id, now=utc_now())
        await bench.ended(log)
        work.cancel()
        row = await bench.run(ChatRun.objects.get)

    assert (row.state, row.output_text) == (RunState.STOPPED, "So far")


def test_end_orphans_keeps_the_text_that_redis_had_more_of(alice, monkeypatch):
    run = ask(alice)
    save_progress(saves=[(run, RunProgress(text="Half", prompt_tokens=7))], lease_seconds=LEASE_SECONDS, now=utc_now())
    lose_owner(run)
    seen = RecoveredText(text="Half an answer", events=())
    monkeypatch.setattr(Recovery, "of", lambda _self, _waiting: seen)

    assert end_orphans(clock=utc_now, wait=lambda _seconds: None) == 1

    row = ChatRun.objects.get()
    assert (row.state, row.error_code, row.output_text) == (RunState.FAILED, INTERRUPTED, "Half an answer")
    assert row.total_tokens == 7 + row.completion_tokens


def test_end_orphans_leaves_a_run_whose_owner_renews_while_it_waits(alice):
    run = ask(alice)
    progress = RunProgress(text="Half")
    save_progress(saves=[(run, progress)], lease_seconds=LEASE_SECONDS, now=utc_now())
    lose_owner(run)

    def renew(_seconds):
        save_progress(saves=[(run, progress)], lease_seconds=LEASE_SECONDS, now=utc_now())

    assert end_orphans(clock=utc_now, wait=renew) == 0
    assert ChatRun.objects.get().is_live


def test_redis_that_is_silent_is_asked_once_for_all_dead_runs(settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        waiting = []
        for number in range(8):
            run = ask(make_user(f"user-{number}"))
            save_progress(saves=[(run, RunProgress(text="Hi"))], lease_seconds=LEASE_SECONDS, now=utc_now())
            waiting.append(WaitingRun(run_id=run.run_id, owner=run.owner, epoch=1, attempt=1))
        began = monotonic()
        with Recovery() as recovery:
            recovered = [recovery.of(one) for one in waiting]

    assert recovered == [None] * 8
    assert monotonic() - began < 3 * ANSWER_SECONDS


def test_end_orphans_waits_for_nothing_when_there_is_none():
    assert end_orphans(clock=utc_now, wait=pytest.fail) == 0
