"""One run's talk with the model: what it is sent, what comes back, and that no more is shown than is held.

Called by the executor, which decides how the run ends. Knows no reader and no lease beyond asking for them.
"""

import asyncio
import contextlib
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

from chat.contracts import RunKind, RunState, StartedRun
from chat.llm.port import ChatModel, ModelRequest, ReasoningDelta, StreamEnded, TextDelta, UsageReported
from chat.memory.budget import RunningEstimate, Turn, trim_turns
from chat.memory.compaction import Context
from chat.memory.history import load_turns
from chat.queries import find_last_outcome
from chat.runs.compacting import Compactor, ContextLimits
from chat.runs.live_run import LiveRun
from smartflow.accounts.quota import QuotaExceeded
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import Clock

# Before the model is asked, so much of its answer is covered; a user with less left than that is told so instead.
FIRST_OUTPUT_TOKENS = 200

_OUTCOMES = {
    RunState.FAILED: "Your last answer was interrupted before its end; the student saw no more of it than is here.",
    RunState.STOPPED: "The student stopped your last answer before its end.",
}


class Keeper(Protocol):
    """Keeps what is said, and the right to say it."""

    is_database_away: bool

    def hurry(self, live: LiveRun) -> None:
        """Save it at once."""

    async def confirm(self, live: LiveRun) -> None:
        """Save it and renew the lease, or halt the run; without the database, return all the same."""


@dataclass(frozen=True, kw_only=True)
class DialogueLimits:
    """What settings decide about what the model is sent."""

    max_input_tokens: int
    reserved_tokens: int
    context: ContextLimits


class Dialogue:
    """Answers runs, any number at once."""

    def __init__(
        self, *, model: ChatModel, database: DatabaseThreads, clock: Clock, keeper: Keeper, limits: DialogueLimits
    ) -> None:
        self._model = model
        self._database = database
        self._keeper = keeper
        self._limits = limits
        self._compactor = Compactor(
            model=model, database=database, clock=clock, keep=keeper.confirm, limits=limits.context
        )

    async def answer(self, live: LiveRun) -> None:
        """
        Let the model answer into the run's log.

        Raises: ModelError; QuotaExceeded; RunNotOwned. What was said until then stands in the log.
        """
        request, asked_tokens = await self._compose(live)
        await live.hold.cover(live.spent_tokens + asked_tokens + FIRST_OUTPUT_TOKENS)
        live.prompt_tokens = asked_tokens
        async with contextlib.aclosing(self._model.stream(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    await self._say(live, event.text)
                elif isinstance(event, ReasoningDelta):
                    thought = live.thought.plus(event.text)
                    await self._check(live, more=thought.tokens - live.thought.tokens)
                    live.thought = thought
                elif isinstance(event, UsageReported):
                    live.report(event)
                elif isinstance(event, StreamEnded):
                    live.ended = event
                    break

    async def _say(self, live: LiveRun, text: str) -> None:
        """Show a piece of the answer, or as much of it as is held. What is not shown is not counted."""
        said = live.said.plus(text)
        try:
            await self._check(live, more=said.tokens - live.said.tokens)
        except QuotaExceeded:
            if beginning := _covered(live, text):
                self._show(live, beginning, live.said.plus(beginning))
            raise
        self._show(live, text, said)

    def _show(self, live: LiveRun, text: str, said: RunningEstimate) -> None:
        live.said = said
        live.log.say(text)
        if not live.has_spoken:
            live.has_spoken = True
            self._keeper.hurry(live)

    async def _check(self, live: LiveRun, *, more: int) -> None:
        """Return when so much more may be said: it is held, and the run is still this process's."""
        spent = live.spent_tokens + more
        if not live.hold.note(spent):
            await live.hold.cover(spent)
        if time.monotonic() > live.lease_ends and not self._keeper.is_database_away:
            # This process stood still for longer than its lease: the run may have been taken over meanwhile.
            await self._keeper.confirm(live)
            await asyncio.sleep(0)  # where the halt of a lost run takes effect, before the next word

    async def _compose(self, live: LiveRun) -> tuple[ModelRequest, int]:
        """Return what the model is asked, and the tokens that it is likely to count."""
        run, limits = live.run, self._limits
        outcome: RunState | None = None
        if run.turn_no > 1:
            live.earlier, outcome = await self._database.run(_recall, run)
        told = _OUTCOMES.get(outcome, "") if outcome else ""
        system_prompt = "\n\n".join(part for part in (run.system_prompt, told) if part)
        context = Context(system_prompt=system_prompt, summary=run.summary, turns=live.earlier, message=run.message)
        context = await self._compactor.compact(live, context)
        kept = trim_turns(
            context.turns,
            # over its budget still, the conversation could not be summarised
            max_input_tokens=min(limits.max_input_tokens - limits.reserved_tokens, limits.context.most_tokens),
            reserved_tokens=0,
            system_prompt=system_prompt + context.summary,
            user_message=run.message,
        )
        context = Context(system_prompt=system_prompt, summary=context.summary, turns=kept, message=run.message)
        live.stats = context.stats(budget=limits.context.budget_tokens)
        request = ModelRequest(
            model=run.model,
            messages=context.messages(),
            system_prompt=system_prompt,
            thinking=run.thinking,
            run_id=run.run_id,
        )
        return request, live.stats.total


def _covered(live: LiveRun, text: str) -> str:
    """Return the beginning of a piece that the hold pays for."""
    room = live.hold.tokens - live.spent_tokens + live.said.tokens
    lengths = range(1, len(text) + 1)
    return text[: bisect_right(lengths, room, key=lambda length: live.said.plus(text[:length]).tokens)]


def _recall(run: StartedRun) -> tuple[tuple[Turn, ...], RunState | None]:
    """Return the turns that the model is reminded of, and how the last one ended where it is to know."""
    turns = load_turns(
        user_id=run.user_id,
        conversation_id=run.conversation_id,
        before_turn=run.turn_no,
        after_turn=run.summary_covers_turn,
        history_seq=run.history_seq,
    )
    if run.kind == RunKind.CONTINUE:
        return turns, None
    return turns, find_last_outcome(user_id=run.user_id, conversation_id=run.conversation_id, before_turn=run.turn_no)
