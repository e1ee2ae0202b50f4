"""Owns runs: lets the model answer, writes the log its readers tail, and ends the run in the database.

One per web process or run_executor. A run does not know who reads along: a client that goes away changes nothing. The
executor is a run's only writer; the lease that its saver renews tells others that it lives.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from django.db import InterfaceError, OperationalError

from chat.contracts import RunResult, RunState, StartedRun
from chat.llm.port import ChatModel, ModelError
from chat.memory.budget import Turn
from chat.memory.history import remember_turn
from chat.operations import RunNotOwned, finish_run, release_run
from chat.runs.compacting import ContextLimits
from chat.runs.dialogue import Dialogue, DialogueLimits
from chat.runs.holding import RunHold
from chat.runs.live_run import Halt, LiveRun
from chat.runs.log import RunLog
from chat.runs.logs import RunLogs
from chat.runs.messages import INTERNAL, NOT_SAVED
from chat.runs.saving import SAVE_SECONDS, RunSaver
from chat.runs.wire import RunEnd
from smartflow.accounts.quota import QuotaExceeded
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import Clock, utc_now
from smartflow.kernel.errors import Unavailable
from smartflow.kernel.redact import describe_error
from smartflow.kernel.text import noop as _
from smartflow.observability.request_id import accept_request_id
from smartflow.observability.tracing import fresh_context

logger = logging.getLogger(__name__)

# While the database is away at the end of a run: how long the finished answer waits for it in memory.
FINISH_PATIENCE_SECONDS = 120.0


class TooManyLiveRuns(Unavailable):
    """This process owns as many runs as it may, or it is about to end."""

    code = "50301"
    message = _("The assistant is very busy right now. Please try again shortly.")


@dataclass(frozen=True, kw_only=True)
class ExecutorLimits:
    """What settings decide about runs."""

    lease_seconds: float
    max_live_runs: int
    max_input_tokens: int
    reserved_tokens: int
    context_budget_tokens: int = 80_000
    context_reserve_tokens: int = 8_000


class RunExecutor:
    """Runs turns on the event loop that made it."""

    def __init__(
        self,
        *,
        model: ChatModel,
        database: DatabaseThreads,
        logs: RunLogs,
        clock: Clock,
        limits: ExecutorLimits,
        on_given_back: Callable[[str], None] = lambda _run_id: None,
    ) -> None:
        self._model = model
        self._database = database
        self._logs = logs
        self._clock = clock
        self._limits = limits
        self._on_given_back = on_given_back
        self._live: dict[str, LiveRun] = {}
        self._tasks: dict[LiveRun, asyncio.Task[None]] = {}
        self._is_ending = False
        self._saver = RunSaver(
            database=database,
            clock=clock,
            lease_seconds=limits.lease_seconds,
            on_lost=lambda live: self._halt(live, Halt.LOST),
        )
        context = ContextLimits(
            budget_tokens=limits.context_budget_tokens, reserve_tokens=limits.context_reserve_tokens
        )
        self._dialogue = Dialogue(
            model=model,
            database=database,
            clock=clock,
            keeper=self._saver,
            limits=DialogueLimits(
                max_input_tokens=limits.max_input_tokens, reserved_tokens=limits.reserved_tokens, context=context
            ),
        )

    @property
    def live_count(self) -> int:
        """How many runs this process owns now."""
        return len(self._tasks)

    @property
    def room(self) -> int:
        """How many more runs this process may take."""
        return 0 if self._is_ending else max(0, self._limits.max_live_runs - len(self._tasks))

    def check_room(self) -> None:
        """Raise TooManyLiveRuns when this process may not take another run."""
        if not self.room:
            raise TooManyLiveRuns(retry_after_seconds=2)

    def start(self, run: StartedRun) -> RunLog:
        """Take over a committed run that this process owns, and return its log."""
        live = LiveRun(
            run=run,
            log=self._logs.open(run, int(utc_now().timestamp())),
            hold=RunHold(run=run, database=self._database, clock=self._clock),
            lease_ends=time.monotonic() + self._limits.lease_seconds,
        )
        if self._is_ending:
            live.halt = Halt.HAND_OVER
        self._live[run.run_id] = live
        # A context of its own: what the request put into its context ends with the request.
        task = asyncio.get_running_loop().create_task(
            self._own(live), name=f"run-{run.run_id}", context=fresh_context()
        )
        self._tasks[live] = task
        task.add_done_callback(lambda _task: self._forget(live))
        return live.log

    def stop(self, run_id: str) -> bool:
        """End a run as its user wishes, keeping what was said; tell whether it is executed here."""
        live = self._live.get(run_id)
        if live is not None:
            self._halt(live, Halt.STOP)
        return live is not None

    async def shutdown(self, *, grace_seconds: float) -> None:
        """
        Take no more runs, give back those that have said nothing, and give the others a moment to end by themselves.

        What still talks then is ended as interrupted, keeping what was said. Twice: the second call shortens the grace.
        """
        self._is_ending = True
        for live in list(self._tasks):
            if not live.has_spoken:
                self._halt(live, Halt.HAND_OVER)
        if self._tasks and grace_seconds > 0:
            await asyncio.wait(list(self._tasks.values()), timeout=grace_seconds)
        for live in list(self._tasks):
            self._halt(live, Halt.SHUTDOWN if live.has_spoken else Halt.HAND_OVER)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._model.aclose()

    def _halt(self, live: LiveRun, halt: Halt) -> None:
        """Let a run talk no more, for the first reason that there is."""
        if live.halt is not None or live.is_over:
            return
        live.halt = halt
        if live.is_talking:
            self._tasks[live].cancel()

    def _forget(self, live: LiveRun) -> None:
        del self._tasks[live]
        if self._live.get(live.run.run_id) is live:
            del self._live[live.run.run_id]

    async def _own(self, live: LiveRun) -> None:
        accept_request_id(live.run.request_id)
        self._saver.add(live)
        try:
            error_code = await self._talk(live) if live.halt is None else ""
            live.is_over = True
            live.hold.close()
            # until then the lease is renewed: when many runs end at once, an end waits its turn
            await self._conclude(live, error_code)
        finally:
            self._saver.remove(live)

    async def _conclude(self, live: LiveRun, error_code: str) -> None:
        if live.halt == Halt.HAND_OVER and not live.has_spoken:
            await self._give_back(live)
        elif live.halt == Halt.LOST or error_code == RunNotOwned.code:
            self._logs.release(live.log)
        else:
            await self._finish(live, live.result(error_code))

    async def _talk(self, live: LiveRun) -> str:
        """Let the model answer; return the error's code, empty for a whole answer and for one that was halted."""
        live.is_talking = True
        try:
            await self._dialogue.answer(live)
        except (ModelError, QuotaExceeded) as error:
            logger.info("The model did not answer fully", extra={"code": error.code, "detail": error.detail})
            live.retry_after_seconds = _seconds_to_wait(error)
            return error.code
        except RunNotOwned as error:
            return error.code
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if live.halt is None:
                live.halt = Halt.SHUTDOWN
            if task is not None:
                task.uncancel()
        except Exception:
            logger.exception("A run failed unexpectedly", extra={"run_id": live.run.run_id})
            return INTERNAL
        finally:
            live.is_talking, live.is_over = False, True
        return ""

    async def _give_back(self, live: LiveRun) -> None:
        """Let another executor have a run that has said nothing."""
        given = False
        try:
            given = await self._database.run(
                lambda: release_run(
                    run=live.run, is_blank=not live.log.units, spent_tokens=live.spent_tokens, now=self._clock()
                )
            )
        except (OperationalError, InterfaceError) as error:
            logger.warning("A run could not be given back", extra={"error": describe_error(error)})
        self._logs.release(live.log)
        if given:
            self._on_given_back(live.run.run_id)

    async def _finish(self, live: LiveRun, result: RunResult) -> None:
        """End the run in the database before its readers see the end."""
        try:
            await self._save_result(live, result)
        except RunNotOwned:
            return self._logs.release(live.log)
        except Exception:
            logger.exception("A run's end could not be saved", extra={"run_id": live.run.run_id})
            result = replace(result, state=RunState.FAILED, error_code=NOT_SAVED)
        live.log.finish(
            RunEnd(
                state=result.state,
                error_code=result.error_code,
                retry_after_seconds=result.retry_after_seconds,
                may_continue=bool(result.text) and result.state != RunState.FINISHED,
            )
        )

    async def _save_result(self, live: LiveRun, result: RunResult) -> None:
        deadline = time.monotonic() + FINISH_PATIENCE_SECONDS
        while True:
            try:
                return await self._database.run(_save_end, live.run, result, live.earlier, self._clock)
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() > deadline:
                    raise
                logger.warning("A run's end waits for the database", extra={"error": describe_error(error)})
                await asyncio.sleep(SAVE_SECONDS)


def _save_end(run: StartedRun, result: RunResult, earlier: tuple[Turn, ...], clock: Callable[[], datetime]) -> None:
    history_seq = finish_run(run=run, result=result, now=clock())
    remember_turn(run=run, earlier=earlier, answer=result.text, history_seq=history_seq)


def _seconds_to_wait(error: ModelError | QuotaExceeded) -> int | None:
    if isinstance(error, ModelError):
        return error.retry_after_seconds
    seconds = error.extra.get("retry_after_seconds")
    return None if seconds is None else int(seconds)
