"""A run in its executor: how it is saved, stopped, handed over, and what it may cost."""

import asyncio
import json
import threading

import pytest
from django.db import DataError, OperationalError

from chat.contracts import RunState
from chat.llm.chunks import ChunkReader
from chat.llm.port import ModelCut, ReasoningDelta, StreamEnded
from chat.llm.sse_decoder import ServerEvent
from chat.memory.budget import estimate_text
from chat.models import ChatRun
from chat.operations import INTERRUPTED, finish_run, list_claimable_runs
from chat.runs.executor import TooManyLiveRuns
from chat.runs.messages import message_of
from outbox.models import OutboxMessage
from smartflow.accounts.models import TokenHold, TokenWindow, User
from smartflow.accounts.quota import QuotaExceeded
from smartflow.kernel.clock import utc_now
from tests.integration.chat.executing import END, SteppedModel, process, until, usage
from tests.integration.chat.turns import ask, result

pytestmark = pytest.mark.django_db(transaction=True)


async def row_of(bench, run):
    return await bench.run(ChatRun.objects.get, id=run.run_id)


async def test_whole_answer_is_stored_before_its_reader_sees_the_end(alice):
    async with process(SteppedModel(["Hal", "lo", usage(10, 2), END])) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        end = await bench.ended(log)
        row = await row_of(bench, run)

    assert (end.state, end.may_continue) == (RunState.FINISHED, False)
    assert (row.state, row.output_text, row.total_tokens) == (RunState.FINISHED, "Hallo", 12)


async def test_first_text_marks_the_run_as_spoken_at_once(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        bench.executor.start(run)
        await until(lambda: bench.model.requests)
        assert not (await row_of(bench, run)).has_spoken

        asked_at = asyncio.get_running_loop().time()
        bench.model.put("First")
        while not (await row_of(bench, run)).has_spoken:
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - asked_at < 0.7


async def test_stop_closes_the_upstream_and_keeps_and_charges_what_was_said(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        bench.model.put("Half an answer")
        await until(lambda: log.text)

        assert bench.executor.stop(run.run_id)
        end = await bench.ended(log)
        row = await row_of(bench, run)
        window = await bench.run(TokenWindow.objects.get, user_id=alice.pk)

    assert bench.model.closed == 1
    assert (end.state, end.may_continue) == (RunState.STOPPED, True)
    assert (row.state, row.output_text, row.error_code) == (RunState.STOPPED, "Half an answer", "")
    assert row.is_usage_estimated
    assert window.used_tokens == row.total_tokens > 0
    assert window.held_tokens == 0


async def test_stop_charges_what_was_said_although_usage_was_reported_before_it(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        bench.model.put(usage(11, 1), "word" * 100)
        await until(lambda: log.text)
        bench.executor.stop(run.run_id)
        await bench.ended(log)
        row = await row_of(bench, run)

    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (11, 100, 111)
    assert row.is_usage_estimated


async def test_whole_answer_is_charged_although_only_its_prompt_was_reported(alice):
    async with process(SteppedModel(["word" * 100, usage(11, 0), END])) as bench:
        run = await bench.run(ask, user=alice)
        await bench.ended(bench.executor.start(run))
        row = await row_of(bench, run)

    assert (row.total_tokens, row.is_usage_estimated) == (111, True)


async def test_stop_before_the_first_step_ends_the_run_without_asking_the_model(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        bench.executor.stop(run.run_id)
        await bench.ended(log)
        row = await row_of(bench, run)

    assert bench.model.requests == []
    assert (row.state, row.total_tokens) == (RunState.STOPPED, 0)


@pytest.mark.parametrize(
    ("answer", "code", "may_continue"),
    [
        ([StreamEnded("stop")], "model_empty_answer", False),
        ([" \n", StreamEnded("length")], "model_empty_answer", True),
        ([StreamEnded("tool_calls")], "model_empty_answer", False),
        ([StreamEnded("content_filter")], "model_filtered_answer", False),
        (["Half ", StreamEnded("sensitive")], "model_filtered_answer", True),
        (["Half ", StreamEnded("length")], "model_reached_length", True),
        (["Half ", StreamEnded("max_tokens")], "model_reached_length", True),
    ],
)
async def test_answer_that_is_not_whole_ends_by_its_name(alice, answer, code, may_continue):
    async with process(SteppedModel(answer)) as bench:
        run = await bench.run(ask, user=alice)
        end = await bench.ended(bench.executor.start(run))
        row = await row_of(bench, run)

    assert (end.state, end.error_code, end.may_continue) == (RunState.FAILED, code, may_continue)
    assert (row.state, row.error_code) == (RunState.FAILED, code)
    assert message_of(code) != message_of("nobody knows this")


async def test_answer_that_was_stopped_before_its_first_word_is_not_called_empty(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        await until(lambda: bench.model.requests)
        bench.executor.stop(run.run_id)
        end = await bench.ended(log)

    assert (end.state, end.error_code) == (RunState.STOPPED, "")


async def test_usage_beyond_every_model_is_estimated(alice):
    report = {"prompt_tokens": 3 * 10**9, "completion_tokens": 1}
    (*reported,) = ChunkReader().read(ServerEvent("", json.dumps({"choices": [], "usage": report}).encode()))
    async with process(SteppedModel(["word", *reported, END])) as bench:
        run = await bench.run(ask, user=alice)
        await bench.ended(bench.executor.start(run))
        row = await row_of(bench, run)

    assert row.is_usage_estimated
    assert 0 < row.total_tokens < 1000


async def test_stop_of_a_run_that_is_not_here_says_so(alice):
    async with process(SteppedModel()) as bench:
        assert not bench.executor.stop("elsewhere")


async def test_shutdown_gives_silent_runs_back_and_lets_the_others_end(alice, bob):
    async with process(SteppedModel()) as bench:
        spoken = await bench.run(ask, user=alice)
        log = bench.executor.start(spoken)
        bench.model.put("I am ")
        await until(lambda: log.text)
        silent = await bench.run(ask, user=bob)
        bench.executor.start(silent)
        await until(lambda: len(bench.model.requests) == 2)

        ending = asyncio.ensure_future(bench.executor.shutdown(grace_seconds=10))
        await until(lambda: bench.given_back)
        with pytest.raises(TooManyLiveRuns):
            bench.executor.check_room()
        waiting = await bench.run(list_claimable_runs, now=utc_now(), limit=9)
        bench.model.put("done", END)
        await ending
        row = await row_of(bench, spoken)

    assert bench.given_back == [silent.run_id]
    assert [(one.run_id, one.owner, one.attempt) for one in waiting] == [(silent.run_id, "", 1)]
    assert (row.state, row.output_text) == (RunState.FINISHED, "I am done")


async def test_shutdown_interrupts_what_still_speaks_after_the_grace(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        bench.model.put("I am ")
        await until(lambda: log.text)
        await bench.executor.shutdown(grace_seconds=0.01)
        row = await row_of(bench, run)

    assert (row.state, row.error_code, row.output_text) == (RunState.FAILED, INTERRUPTED, "I am ")
    assert log.end_of_run.may_continue


async def test_second_shutdown_ends_the_grace_of_the_first(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        bench.model.put("I am ")
        await until(lambda: log.text)
        first = asyncio.ensure_future(bench.executor.shutdown(grace_seconds=600))
        await asyncio.sleep(0)
        await bench.executor.shutdown(grace_seconds=0)
        await first

    assert log.end_of_run.error_code == INTERRUPTED


async def test_run_begun_while_the_process_ends_is_given_back(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        await bench.executor.shutdown(grace_seconds=0)
        bench.executor.start(run)
        await until(lambda: bench.given_back)
        row = await row_of(bench, run)

    assert (row.owner, row.state, row.has_spoken) == ("", RunState.QUEUED, False)


async def test_run_that_somebody_else_has_by_now_is_left_alone(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        await bench.run(lambda: ChatRun.objects.update(owner="other", epoch=2, attempt=2))
        bench.model.put("Too late")
        await until(lambda: not bench.executor.live_count)
        row = await row_of(bench, run)

    assert bench.model.closed == 1
    assert log.end_of_run is None
    assert not log.is_owned
    assert (row.owner, row.output_text, row.has_spoken, row.is_live) == ("other", "", False, True)


async def test_process_that_stood_still_for_its_lease_says_no_more_of_a_lost_run(alice):
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        bench.model.put("Before. ")
        await until(lambda: log.text)
        await bench.run(lambda: ChatRun.objects.update(owner="other", epoch=2))
        (live,) = bench.executor._tasks
        live.lease_ends = 0.0
        bench.model.put("After.")
        await until(lambda: not bench.executor.live_count)

    assert log.text == "Before. "


async def test_run_that_cannot_be_written_costs_the_others_no_lease(alice, bob, monkeypatch, caplog):
    async with process(SteppedModel(), lease_seconds=2) as bench:
        runs = [await bench.run(ask, user=user) for user in (alice, bob)]
        for run in runs:
            bench.executor.start(run)
        await until(lambda: len(bench.model.requests) == 2)

        def refuse(**_arguments):
            raise DataError("a character that no column holds")

        monkeypatch.setattr("chat.runs.saving.save_progress", refuse)
        for word in ("One", "Two"):  # one for each run
            bench.model.put(word)
            await until(bench.model.steps.empty)
        leases = {run.run_id: (await row_of(bench, run)).lease_until for run in runs}
        await until(lambda: "the leases are renewed without it" in caplog.text)
        for run in runs:
            while (await row_of(bench, run)).lease_until == leases[run.run_id]:
                await asyncio.sleep(0.02)
        monkeypatch.undo()
        bench.model.put(END, END)
        await until(lambda: not bench.executor.live_count)
        rows = [await row_of(bench, run) for run in runs]

    assert {row.state for row in rows} == {RunState.FINISHED}
    assert sorted("".join(row.output_text for row in rows)) == sorted("OneTwo")


async def test_lease_that_could_not_be_renewed_is_not_believed_in(alice, monkeypatch, caplog):
    def refuse(error):
        def fail(**_arguments):
            raise error

        return fail

    async with process(SteppedModel()) as bench:
        bench.executor.start(await bench.run(ask, user=alice))
        await until(lambda: bench.model.requests)
        (live,) = bench.executor._tasks
        believed = live.lease_ends
        monkeypatch.setattr("chat.runs.saving.save_progress", refuse(DataError("a character that no column holds")))
        monkeypatch.setattr("chat.runs.saving.renew_leases", refuse(OperationalError("gone away")))
        bench.model.put("Hi")
        await until(lambda: "Leases could not be renewed" in caplog.text)
        seen = (live.lease_ends, bench.executor._saver.is_database_away)
        monkeypatch.undo()
        bench.model.put(END)
        await until(lambda: not bench.executor.live_count)

    assert seen == (believed, True)


async def test_lease_is_renewed_while_the_end_waits_for_the_database(alice, monkeypatch):
    """Many runs that end at once wait for the database's threads; none may look abandoned meanwhile."""
    may_end = threading.Event()

    def finish_late(**arguments):
        if not may_end.is_set():
            raise OperationalError("busy")
        return finish_run(**arguments)

    monkeypatch.setattr("chat.runs.executor.finish_run", finish_late)
    model = SteppedModel(["Whole", usage(), END])
    async with process(model, lease_seconds=2) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        await until(lambda: model.closed == 1)
        leases = {(await row_of(bench, run)).lease_until}
        async with asyncio.timeout(10):
            while len(leases) < 3:
                await asyncio.sleep(0.02)
                leases.add((await row_of(bench, run)).lease_until)
        may_end.set()

        assert (await bench.ended(log)).state == RunState.FINISHED
        assert (await row_of(bench, run)).state == RunState.FINISHED


async def test_cut_answer_is_told_and_charged_by_an_estimate(alice):
    async with process(SteppedModel(["Half", ReasoningDelta("hmm"), ModelCut("gone")])) as bench:
        run = await bench.run(ask, user=alice)
        end = await bench.ended(bench.executor.start(run))
        row = await row_of(bench, run)

    assert (end.state, end.error_code, end.may_continue) == (RunState.FAILED, "model_cut", True)
    assert (row.output_text, row.is_usage_estimated, row.completion_tokens) == ("Half", True, 2)


async def test_last_outcome_is_told_to_the_model(alice):
    async with process(SteppedModel(["Fine", END], ["Fine", END])) as bench:
        first = await bench.run(ask, user=alice)
        await bench.run(finish_run, run=first, result=result("Hal", state=RunState.STOPPED), now=utc_now())
        second = await bench.run(ask, user=alice, conversation_id=first.conversation_id)
        await bench.ended(bench.executor.start(second))
        third = await bench.run(ask, user=alice, conversation_id=first.conversation_id)
        await bench.ended(bench.executor.start(third))

    stopped, fine = (request.system_prompt for request in bench.model.requests)
    assert stopped == "The student stopped your last answer before its end."
    assert fine == ""


@pytest.mark.parametrize("deltas", [["word" * 3000], ["两 " * 3000], ["word" * 400, "word" * 3000]])
async def test_delta_beyond_the_quota_is_shown_and_charged_as_far_as_it_goes(alice, deltas):
    async with process(SteppedModel([*deltas, END])) as bench:
        await bench.run(lambda: User.objects.filter(pk=alice.pk).update(token_limit=1000))
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        end = await bench.ended(log)
        row = await row_of(bench, run)
        window = await bench.run(TokenWindow.objects.get, user_id=alice.pk)

    assert (end.error_code, end.may_continue) == (QuotaExceeded.code, True)
    assert window.used_tokens == row.total_tokens == 1000
    assert row.output_text == "".join(deltas)[: len(row.output_text)]
    assert row.completion_tokens == estimate_text(row.output_text)


async def test_thoughts_beyond_the_quota_are_not_charged(alice):
    async with process(SteppedModel([ReasoningDelta("word" * 3000), END])) as bench:
        await bench.run(lambda: User.objects.filter(pk=alice.pk).update(token_limit=1000))
        run = await bench.run(ask, user=alice)
        end = await bench.ended(bench.executor.start(run))
        window = await bench.run(TokenWindow.objects.get, user_id=alice.pk)

    assert end.error_code == QuotaExceeded.code
    assert window.used_tokens <= 1000


async def test_hold_grows_while_the_answer_streams_and_is_settled_at_its_end(alice):
    words = ["word " * 200] * 8
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        for word in words:
            bench.model.put(word)
        await until(lambda: len(log.text) == 8000)
        hold = await bench.run(TokenHold.objects.get, pk=run.run_id)
        bench.model.put(END)
        await bench.ended(log)
        row = await row_of(bench, run)
        window = await bench.run(TokenWindow.objects.get, user_id=alice.pk)

    assert hold.tokens >= 1600 > run.held_tokens
    assert row.completion_tokens == 1600
    assert (window.used_tokens, window.held_tokens) == (row.total_tokens, 0)


async def test_answer_ends_where_the_quota_does_with_all_that_was_left(alice):
    await process_limit(alice, 2000)
    async with process(SteppedModel()) as bench:
        run = await bench.run(ask, user=alice)
        log = bench.executor.start(run)
        for _ in range(100):
            bench.model.put("word " * 40)
        end = await bench.ended(log)
        row = await row_of(bench, run)
        window = await bench.run(TokenWindow.objects.get, user_id=alice.pk)

    assert (end.state, end.error_code) == (RunState.FAILED, QuotaExceeded.code)
    assert end.retry_after_seconds > 0
    assert bench.model.closed == 1
    assert 1900 < row.prompt_tokens + len(row.output_text) // 5 <= 2000
    assert window.held_tokens == 0
    assert window.used_tokens == row.total_tokens


async def test_input_that_the_quota_does_not_cover_costs_nothing(alice):
    async with process(SteppedModel()) as bench:
        first = await bench.run(ask, user=alice)
        long = "word " * 4000
        await bench.run(finish_run, run=first, result=result(long, total=0), now=utc_now())
        await process_limit(alice, 2000)
        second = await bench.run(ask, user=alice, conversation_id=first.conversation_id)
        end = await bench.ended(bench.executor.start(second))
        row = await row_of(bench, second)
        window = await bench.run(TokenWindow.objects.get, user_id=alice.pk)

    assert bench.model.requests == []
    assert end.error_code == QuotaExceeded.code
    assert (row.total_tokens, row.output_text, window.used_tokens, window.held_tokens) == (0, "", 0, 0)


async def test_ended_run_leaves_nothing_in_the_process(alice):
    async with process(SteppedModel(["Hi", END])) as bench:
        run = await bench.run(ask, user=alice)
        await bench.ended(bench.executor.start(run))
        await until(lambda: not bench.executor.live_count)
        names = {task.get_name() for task in asyncio.all_tasks()}
        events = await bench.run(OutboxMessage.objects.count)

    assert not any(name.startswith("run-") and run.run_id in name for name in names)
    assert events >= 2


async def process_limit(user, tokens):
    """Give the user so many tokens a week."""
    await User.objects.filter(pk=user.pk).aupdate(token_limit=tokens)
