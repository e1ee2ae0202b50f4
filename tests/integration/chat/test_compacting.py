"""A conversation over its budget: the summary, its marker, its cost, and what happens when it fails."""

import json
from datetime import timedelta

import pytest

from chat.contracts import Role, RunState
from chat.llm.completion import Completion
from chat.llm.port import ModelCut, ModelUnreachable
from chat.models import AgentChat, AgentTimelineEvent, ChatRun
from chat.operations import claim_run, finish_run
from chat.queries import find_context_stats
from chat.runs import compacting
from outbox.testing import drain
from smartflow.accounts.models import TokenLedgerEntry
from smartflow.kernel.clock import utc_now
from tests.integration.chat.executing import END, SteppedModel, process, until, usage
from tests.integration.chat.turns import ask, result

pytestmark = pytest.mark.django_db(transaction=True)
LIMITS = {"context_budget_tokens": 2000, "context_reserve_tokens": 200}
ANSWER = ["Fine.", usage(300, 2), END]


def long_conversation(user, count=6):
    """Turns of about 500 tokens each."""
    conversation_id = None
    for number in range(count):
        run = ask(user, f"Question {number}", conversation_id=conversation_id)
        conversation_id = run.conversation_id
        finish_run(run=run, result=result(f"Answer {number} " + "x" * 2000), now=utc_now())
    return conversation_id


async def answer_over_budget(bench, user):
    conversation_id = await bench.run(long_conversation, user=user)
    run = await bench.run(ask, user=user, message="And now?", conversation_id=conversation_id)
    log = bench.executor.start(run)
    await bench.ended(log)
    return run, log


async def test_older_turns_become_a_summary_with_a_marker(alice):
    async with process(SteppedModel(["Alice ", "likes tea.", usage(900, 4), END], ANSWER), **LIMITS) as bench:
        _run, log = await answer_over_budget(bench, alice)
        chat = await bench.run(AgentChat.objects.get)
        marker = await bench.run(AgentTimelineEvent.objects.get, kind="context_compacted")
        asked = AgentTimelineEvent.objects.filter(kind="user_text").order_by("seq")
        questions = await bench.run(lambda: list(asked.values_list("content", flat=True)[:2]))

    summary_request, answer_request = bench.model.requests
    assert summary_request.purpose == "summary"
    assert "Question 0" in summary_request.messages[0].content
    assert "> Alice likes tea." in answer_request.messages[0].content
    kept = [message.content for message in answer_request.messages[1:] if message.role is Role.USER]
    assert kept == ["Question 5", "And now?"]
    assert chat.compaction_watermark == 5
    assert json.loads(chat.compaction_summary)["stages"]["chat"]["summary"] == "Alice likes tea."
    assert (marker.content, marker.tokens_consumed) == ("Alice likes tea.", 904)
    assert questions == ["Question 0", "Question 1"]
    statuses = [event["data"]["status"] for event in log.events]
    assert [status["code"] for status in statuses] == ["context_compact_start", "context_compact_done"]
    assert statuses[1]["tokens_before"] == statuses[0]["tokens_before"] > 2000 > statuses[1]["tokens_after"]


async def test_summary_is_a_call_of_the_run_in_the_ledger(alice):
    async with process(SteppedModel(["Short.", usage(900, 4), END], ANSWER), **LIMITS) as bench:
        run, _log = await answer_over_budget(bench, alice)
        row = await bench.run(ChatRun.objects.get, id=run.run_id)
        await bench.run(drain)
        entries = await bench.run(
            lambda: list(
                TokenLedgerEntry.objects.filter(run_id=run.run_id)
                .order_by("entry_key")
                .values_list("entry_key", "purpose", "total_tokens")
            )
        )
        stats = await bench.run(find_context_stats, user_id=alice.pk, conversation_id=run.conversation_id)

    assert row.total_tokens == 904 + 302
    assert entries == [(f"{run.run_id}:1:1", "summary", 904), (f"{run.run_id}:1:2", "answer", 302)]
    assert stats.total == stats.msg0 + stats.msg1 + stats.msg3 < 2000
    assert stats.budget == 2000


async def test_next_turn_starts_from_the_summary_without_a_new_one(alice):
    async with process(SteppedModel(["Short.", END], ANSWER, ANSWER), **LIMITS) as bench:
        run, _log = await answer_over_budget(bench, alice)
        again = await bench.run(ask, user=alice, message="More?", conversation_id=run.conversation_id)
        await bench.ended(bench.executor.start(again))

    sent = bench.model.requests[-1].messages
    assert "> Short." in sent[0].content
    assert [message.content for message in sent if message.role is Role.USER][1:] == ["Question 5", "And now?", "More?"]


@pytest.mark.parametrize("failing", [[ModelUnreachable("no")], ["  ", END]])
async def test_without_a_summary_the_answer_comes_all_the_same(alice, failing):
    async with process(SteppedModel(failing, ANSWER), **LIMITS) as bench:
        run, log = await answer_over_budget(bench, alice)
        chat = await bench.run(AgentChat.objects.get)
        row = await bench.run(ChatRun.objects.get, id=run.run_id)

    asked = [message.content for message in bench.model.requests[-1].messages if message.role is Role.USER]
    assert asked == ["Question 3", "Question 4", "Question 5", "And now?"]
    assert (chat.compaction_watermark, chat.compaction_summary) == (0, None)
    assert (row.state, log.text) == (RunState.FINISHED, "Fine.")


async def test_summary_that_breaks_off_is_paid_for_and_not_used(alice):
    cut = ModelCut("gone")
    async with process(SteppedModel(["Half a summ", cut], ANSWER), **LIMITS) as bench:
        run, _log = await answer_over_budget(bench, alice)
        row = await bench.run(ChatRun.objects.get, id=run.run_id)
        chat = await bench.run(AgentChat.objects.get)

    assert isinstance(cut.partial, Completion)
    assert row.total_tokens == cut.partial.usage.total_tokens + 302
    assert chat.compaction_watermark == 0


async def test_summary_that_took_too_long_is_paid_for_by_its_estimate(alice, monkeypatch):
    monkeypatch.setattr(compacting, "PATIENCE_SECONDS", 0.2)
    async with process(SteppedModel(["Half a summary"], ANSWER), **LIMITS) as bench:
        run, log = await answer_over_budget(bench, alice)
        row = await bench.run(ChatRun.objects.get, id=run.run_id)
        await bench.run(drain)
        entries = await bench.run(
            lambda: list(
                TokenLedgerEntry.objects.filter(run_id=run.run_id)
                .order_by("entry_key")
                .values_list("purpose", "input_tokens", "output_tokens", "is_estimated")
            )
        )

    (purpose, read, written, is_estimated), answer = entries
    assert (purpose, written, is_estimated) == ("summary", 3, True)
    assert read > 300
    assert answer == ("answer", 300, 2, False)
    assert (row.state, row.total_tokens, log.text) == (RunState.FINISHED, read + 3 + 302, "Fine.")


async def test_what_a_summary_asks_is_kept_before_it_is_sent_and_charged_once_when_its_process_dies(alice):
    kept = []

    class Model(SteppedModel):
        async def stream(self, request):
            kept.append(await bench.run(lambda: ChatRun.objects.get(is_live=True).prompt_tokens))
            async for event in super().stream(request):
                yield event

    async with process(Model(), **LIMITS) as bench:
        conversation_id = await bench.run(long_conversation, user=alice)
        run = await bench.run(ask, user=alice, message="And now?", conversation_id=conversation_id)
        bench.executor.start(run)
        await until(lambda: bench.model.requests)
        later = utc_now() + timedelta(seconds=60)
        heir = await bench.run(claim_run, run_id=run.run_id, owner="heir", lease_seconds=12, now=later)
        await bench.run(finish_run, run=heir, result=result(total=9), now=later)
        await bench.run(drain)
        entries = TokenLedgerEntry.objects.filter(run_id=run.run_id).order_by("purpose")
        charged = await bench.run(lambda: list(entries.values_list("purpose", "total_tokens", "is_estimated")))

    assert kept[0] > 300
    assert charged == [("answer", 9, False), ("chat", kept[0], True)]


async def test_summary_that_could_not_be_asked_for_costs_nothing(alice):
    async with process(SteppedModel([ModelUnreachable("away")], ANSWER), **LIMITS) as bench:
        run, _log = await answer_over_budget(bench, alice)
        row = await bench.run(ChatRun.objects.get, id=run.run_id)

    assert (row.prompt_tokens, row.total_tokens) == (300, 302)
