"""Owns runs: calls the model, writes the log its readers tail, saves what was said and ends the run in the database.

One per web process. A run does not know who reads along: a client that goes away changes nothing. The executor is a
run's only writer; the lease it renews every second tells others that it lives.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from datetime import datetime

from django.db import InterfaceError, OperationalError

from chat.contracts import HistoryMessage, Role, RunProgress, RunResult, RunState, StartedRun
from chat.llm.port import ChatModel, ModelError, ModelRequest, ReasoningDelta, StreamEnded, TextDelta, UsageReported
from chat.memory.budget import Turn, estimate_prompt, estimate_text, trim_turns
from chat.memory.history import load_turns, remember_turn
from chat.operations import INTERRUPTED, RunNotOwned, finish_run, save_progress
from chat.runs.log import RunLog
from chat.runs.logs import RunLogs
from chat.runs.messages import INTERNAL, NOT_SAVED
from chat.runs.wire import RunEnd
from smartflow.accounts.contracts import ModelCall
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import Clock
from smartflow.kernel.errors import Unavailable
from smartflow.kernel.redact import describe_error
from smartflow.kernel.text import noop as _
from smartflow.observability.request_id import accept_request_id
from smartflow.observability.tracing import fresh_context

logger = logging.getLogger(__name__)

# What is said reaches the database this often, so a killed process loses at most this much of it.
SAVE_SECONDS = 1.0
# While the database is away at the end of a run: how long the finished answer waits for it in memory.
FINISH_PATIENCE_SECONDS = 120.0


class TooManyLiveRuns(Unavailable):
    """This process owns as many runs as it may."""

    code = "50301"
    message = _("The assistant is very busy right now. Please try again shortly.")


@dataclass(frozen=True, kw_only=True)
class ExecutorLimits:
    """What settings decide about runs."""

    lease_seconds: float
    max_live_runs: int
    max_input_tokens: int
    reserved_tokens: int


@dataclass(kw_only=True)
class _LiveRun:
    """A run in this process: where its readers follow it, and what it has produced so far."""

    run: StartedRun
    log: RunLog
    earlier: tuple[Turn, ...] = ()
    thoughts: list[str] = field(default_factory=list)  # never shown, but paid for
    prompt_tokens: int = 0
    reported: UsageReported | None = None
    retry_after_seconds: int | None = None

    def progress(self) -> RunProgress:
        """Return what is to be kept."""
        return RunProgress(text=self.log.text, events=tuple(self.log.events), prompt_tokens=self.prompt_tokens)

    def calls(self) -> tuple[ModelCall, ...]:
        """Return the provider's figures, or an estimate where it gave none and something was said."""
        said = estimate_text(self.log.text) + estimate_text("".join(self.thoughts))
        usage = self.reported
        if usage is None and not said:
            return ()
        is_estimated = usage is None
        if usage is None:
            usage = UsageReported(self.prompt_tokens, said, self.prompt_tokens + said)
        return (
            ModelCall(
                call_id=f"{self.run.run_id}:{self.run.attempt}:1",
                purpose="answer",
                model=self.run.model,
                input_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                output_tokens=usage.completion_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                total_tokens=usage.total_tokens,
                is_estimated=is_estimated,
            ),
        )


class RunExecutor:
    """Runs turns on the event loop that made it."""

    def __init__(
        self, *, model: ChatModel, database: DatabaseThreads, clock: Clock, limits: ExecutorLimits, logs: RunLogs
    ) -> None:
        self._logs = logs
        self._model = model
        self._database = database
        self._clock = clock
        self._limits = limits
        self._live: dict[str, asyncio.Task[None]] = {}

    @property
    def live_count(self) -> int:
        """How many runs this process owns now."""
        return len(self._live)

    def check_room(self) -> None:
        """Raise TooManyLiveRuns when this process may not take another run."""
        if len(self._live) >= self._limits.max_live_runs:
            raise TooManyLiveRuns(retry_after_seconds=2)

    def start(self, run: StartedRun) -> RunLog:
        """Take a committed run over and return its log."""
        log = self._logs.open(run, int(self._clock().timestamp()))
        live = _LiveRun(run=run, log=log)
        # A context of its own: what the request put into its context ends with the request.
        task = asyncio.get_running_loop().create_task(
            self._own(live), name=f"run-{run.run_id}", context=fresh_context()
        )
        self._live[run.run_id] = task
        task.add_done_callback(lambda _task: self._live.pop(run.run_id, None))
        return log

    async def shutdown(self, *, grace_seconds: float) -> None:
        """Give live runs a moment to end by themselves, then end them as interrupted, keeping what was said."""
        tasks = list(self._live.values())
        if tasks:
            _done, late = await asyncio.wait(tasks, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._model.aclose()

    async def _own(self, live: _LiveRun) -> None:
        accept_request_id(live.run.request_id)
        error_code = await self._converse_and_save(live)
        if error_code != RunNotOwned.code:
            error_code = await self._finish(live, error_code)
        await self._logs.settle(live.log)
        live.log.finish(
            RunEnd(
                state=RunState.FAILED if error_code else RunState.FINISHED,
                error_code=error_code,
                retry_after_seconds=live.retry_after_seconds,
                may_continue=bool(error_code and live.log.text),
            )
        )

    async def _converse_and_save(self, live: _LiveRun) -> str:
        """Talk to the model while saving every second; return the error's code, empty for a whole answer."""
        talking = asyncio.ensure_future(self._converse(live))
        saving = asyncio.ensure_future(self._keep_saving(live))
        try:
            await asyncio.wait({talking, saving}, return_when=asyncio.FIRST_COMPLETED)
            if not talking.done():
                return RunNotOwned.code
            talking.result()
        except ModelError as error:
            logger.info("The model did not answer fully", extra={"code": error.code, "detail": error.detail})
            live.retry_after_seconds = error.retry_after_seconds
            return error.code
        except asyncio.CancelledError:
            return INTERRUPTED
        except Exception:
            logger.exception("A run failed unexpectedly", extra={"run_id": live.run.run_id})
            return INTERNAL
        finally:
            for task in (talking, saving):
                task.cancel()
            await asyncio.gather(talking, saving, return_exceptions=True)
        return ""

    async def _converse(self, live: _LiveRun) -> None:
        run = live.run
        if run.turn_no > 1:
            live.earlier = await self._database.run(
                load_turns,
                user_id=run.user_id,
                conversation_id=run.conversation_id,
                before_turn=run.turn_no,
                history_seq=run.history_seq,
            )
        messages = self._messages(run, live.earlier)
        live.prompt_tokens = estimate_prompt(messages, system_prompt=run.system_prompt)
        request = ModelRequest(
            model=run.model,
            messages=messages,
            system_prompt=run.system_prompt,
            thinking=run.thinking,
            run_id=run.run_id,
        )
        async with contextlib.aclosing(self._model.stream(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    live.log.say(event.text)
                elif isinstance(event, ReasoningDelta):
                    live.thoughts.append(event.text)
                elif isinstance(event, UsageReported):
                    live.reported = event
                elif isinstance(event, StreamEnded):
                    break

    def _messages(self, run: StartedRun, turns: tuple[Turn, ...]) -> tuple[HistoryMessage, ...]:
        kept = trim_turns(
            turns,
            max_input_tokens=self._limits.max_input_tokens,
            reserved_tokens=self._limits.reserved_tokens,
            system_prompt=run.system_prompt,
            user_message=run.message,
        )
        question = HistoryMessage(role=Role.USER, content=run.message)
        return (*(message for turn in kept for message in turn), question)

    async def _keep_saving(self, live: _LiveRun) -> None:
        """Save progress and renew the lease until cancelled; return when the run belongs to somebody else."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            try:
                lost = await self._database.run(
                    save_progress,
                    saves=[(live.run, live.progress())],
                    lease_seconds=self._limits.lease_seconds,
                    now=self._clock(),
                )
                if lost:
                    return
            except (OperationalError, InterfaceError) as error:
                logger.info("Progress could not be saved; next try in a second", extra={"error": describe_error(error)})

    async def _finish(self, live: _LiveRun, error_code: str) -> str:
        """End the run in the database before its readers see the end; return the error's code as they are told it."""
        result = RunResult(
            state=RunState.FAILED if error_code else RunState.FINISHED,
            text=live.log.text,
            events=tuple(live.log.events),
            calls=live.calls(),
            error_code=error_code,
            retry_after_seconds=live.retry_after_seconds,
        )
        try:
            await self._save_result(live, result, self._clock())
        except RunNotOwned as error:
            return error.code
        except Exception:
            logger.exception("A run's end could not be saved", extra={"run_id": live.run.run_id})
            return NOT_SAVED
        return error_code

    async def _save_result(self, live: _LiveRun, result: RunResult, now: datetime) -> None:
        deadline = time.monotonic() + FINISH_PATIENCE_SECONDS
        while True:
            try:
                return await self._database.run(_save_end, live.run, result, live.earlier, now)
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() > deadline:
                    raise
                logger.warning("A run's end waits for the database", extra={"error": describe_error(error)})
                await asyncio.sleep(SAVE_SECONDS)


def _save_end(run: StartedRun, result: RunResult, earlier: tuple[Turn, ...], now: datetime) -> None:
    history_seq = finish_run(run=run, result=result, now=now)
    remember_turn(run=run, earlier=earlier, answer=result.text, history_seq=history_seq)
