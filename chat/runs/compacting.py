"""Lets the model write the summary that stands for the older part of a conversation. Called by the dialogue.

The student's answer never fails for it: without a summary the oldest turns are left out instead.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from django.db import InterfaceError, OperationalError
from django.utils import translation

from chat.contracts import HistoryMessage, Role, StartedRun
from chat.llm.completion import complete
from chat.llm.port import ChatModel, Completion, ModelError, ModelRequest
from chat.memory.budget import REQUEST_OVERHEAD_TOKENS
from chat.memory.compaction import (
    SUMMARY_OUTPUT_TOKENS,
    SUMMARY_PROMPT,
    CompactionPlan,
    Context,
    compose_summary_input,
    plan_compaction,
)
from chat.operations import RunNotOwned, save_compaction
from chat.queries import find_answered_turn
from chat.runs.live_run import LiveRun, call_of
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import Clock
from smartflow.kernel.redact import describe_error
from smartflow.kernel.text import noop as _

logger = logging.getLogger(__name__)

# The student waits for it before the first word.
PATIENCE_SECONDS = 30.0
START, DONE = "context_compact_start", "context_compact_done"
_SENTENCES = {
    START: _("Summarising the earlier part of the conversation"),
    DONE: _("The earlier part of the conversation was summarised"),
}


@dataclass(frozen=True, kw_only=True)
class ContextLimits:
    """What settings decide about the context."""

    budget_tokens: int
    reserve_tokens: int

    @property
    def most_tokens(self) -> int:
        """The budget in the measure of trim_turns, which counts what surrounds the messages too."""
        return self.budget_tokens + REQUEST_OVERHEAD_TOKENS


class Compactor:
    """Makes a context fit its budget, once before each answer."""

    def __init__(
        self,
        *,
        model: ChatModel,
        database: DatabaseThreads,
        clock: Clock,
        keep: Callable[[LiveRun], Awaitable[None]],
        limits: ContextLimits,
    ) -> None:
        self._model = model
        self._database = database
        self._clock = clock
        self._keep_run = keep
        self._limits = limits

    async def compact(self, live: LiveRun, context: Context) -> Context:
        """
        Return the context with its older turns summarised, or as it was when it fits or no summary came about.

        Twice:  a summary that was kept is part of the context from then on.
        Raises: RunNotOwned; QuotaExceeded when the summary would cost more than the user has.
        """
        limits = self._limits
        plan = plan_compaction(context, budget=limits.budget_tokens, reserve=limits.reserve_tokens)
        if plan is None:
            return context
        before = context.stats(budget=limits.budget_tokens).total
        live.log.note(_status(START, live.run, tokens_before=before))
        summary = await self._summarise(live, context, plan)
        compacted = await self._keep(live, context, plan, summary) if summary else context
        after = compacted.stats(budget=limits.budget_tokens).total
        live.log.note(_status(DONE, live.run, tokens_before=before, tokens_after=after))
        return compacted

    async def _summarise(self, live: LiveRun, context: Context, plan: CompactionPlan) -> str:
        """Return the summary, "" when there is none; what it cost is the run's in any case."""
        most = self._limits.budget_tokens - self._limits.reserve_tokens
        material = compose_summary_input(summary=context.summary, turns=plan.older, most_tokens=most)
        request = ModelRequest(
            model=live.run.model,
            messages=(HistoryMessage(role=Role.USER, content=material),),
            system_prompt=SUMMARY_PROMPT,
            thinking="false",
            run_id=live.run.run_id,
            purpose="summary",
            max_output_tokens=SUMMARY_OUTPUT_TOKENS,
        )
        asked_tokens = _tokens_of(request)
        await live.hold.cover(live.spent_tokens + asked_tokens + SUMMARY_OUTPUT_TOKENS)
        # Kept before it is sent: a process that dies while the model writes leaves a bill that somebody pays.
        live.prompt_tokens = asked_tokens
        try:
            await self._keep_run(live)
            await asyncio.sleep(0)  # where the halt of a lost run takes effect, before anything is sent
            async with asyncio.timeout(PATIENCE_SECONDS):
                completion = await complete(self._model, request, on_cut=partial(_charge, live))
        except ModelError as error:
            logger.info("A conversation could not be summarised", extra={"code": error.code, "detail": error.detail})
            if error.partial is not None:
                _charge(live, error.partial)
            return ""
        except TimeoutError:
            logger.info("A conversation's summary took too long", extra={"run_id": live.run.run_id})
            return ""
        finally:
            live.prompt_tokens = 0
        _charge(live, completion)
        return completion.text.strip()

    async def _keep(self, live: LiveRun, context: Context, plan: CompactionPlan, summary: str) -> Context:
        def save() -> int:
            run = live.run
            covers = find_answered_turn(
                user_id=run.user_id,
                conversation_id=run.conversation_id,
                before_turn=run.turn_no,
                newer_count=len(plan.kept),
            )
            if covers is None:
                raise RunNotOwned(run_id=run.run_id)
            tokens = live.earlier_calls[-1].total_tokens
            save_compaction(run=run, summary=summary, covers_turn=covers, tokens=tokens, now=self._clock())
            return covers

        try:
            covers = await self._database.run(save)
        except (OperationalError, InterfaceError) as error:
            logger.info("A summary could not be kept", extra={"error": describe_error(error)})
            return context
        live.run = replace(live.run, summary=summary, summary_covers_turn=covers)
        live.earlier = plan.kept
        return replace(context, summary=summary, turns=plan.kept)


def _charge(live: LiveRun, completion: Completion) -> None:
    call = call_of(
        completion.usage,
        call_id=live.call_id(),
        purpose="summary",
        model=live.run.model,
        is_estimated=completion.is_estimated,
    )
    live.earlier_calls.append(call)


def _tokens_of(request: ModelRequest) -> int:
    context = Context(system_prompt=request.system_prompt, summary="", turns=(), message=request.messages[0].content)
    return context.stats(budget=0).total


def _status(code: str, run: StartedRun, **tokens: int) -> dict[str, Any]:
    with translation.override(run.language):
        status = {"code": code, "summary": translation.gettext(_SENTENCES[code]), **tokens}
    return {
        "kind": "status",
        "block_id": "chat.status",
        "stage": "chat",
        "display_mode": "card",
        "status": status,
    }
