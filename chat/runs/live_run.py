"""A run in the process that executes it: what it has said and thought, what its calls cost, and why it must end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from chat.contracts import ContextStats, RunProgress, RunResult, RunState, StartedRun
from chat.llm.completion import charged_usage
from chat.llm.port import (
    REASONS_OF_FILTER,
    REASONS_OF_LENGTH,
    ModelEmptyAnswer,
    ModelFilteredAnswer,
    ModelReachedLength,
    StreamEnded,
    UsageReported,
)
from chat.memory.budget import RunningEstimate, Turn
from chat.operations import INTERRUPTED
from chat.runs.holding import RunHold
from chat.runs.log import RunLog
from smartflow.accounts.contracts import ModelCall


class Halt(StrEnum):
    """Why somebody ends a run before the model does."""

    STOP = "stop"  # its user wants no more of it
    SHUTDOWN = "shutdown"  # this process ends
    HAND_OVER = "hand_over"  # this process ends and nothing was said: another may execute it
    LOST = "lost"  # it is somebody else's


@dataclass(kw_only=True, eq=False)
class LiveRun:
    """Everything of one run that is in memory."""

    run: StartedRun
    log: RunLog
    hold: RunHold
    lease_ends: float  # on this process's monotonic clock: after that, another may have it
    earlier: tuple[Turn, ...] = ()
    is_talking: bool = False  # to the model; before and after that there is nothing to interrupt
    is_over: bool = False  # it talks no more
    halt: Halt | None = None
    has_spoken: bool = False
    prompt_tokens: int = 0
    reported: UsageReported | None = None
    reported_at: int = 0  # what the answer was likely to have cost when that was said
    ended: StreamEnded | None = None
    retry_after_seconds: int | None = None
    stats: ContextStats | None = None
    said: RunningEstimate = field(default_factory=RunningEstimate)
    thought: RunningEstimate = field(default_factory=RunningEstimate)  # never shown, but paid for
    earlier_calls: list[ModelCall] = field(default_factory=list)  # before the answer's
    saved: tuple[int, int] | None = None  # the position and the prompt's tokens that the database has

    @property
    def output_tokens(self) -> int:
        """What the answer is likely to have cost so far."""
        return self.said.tokens + self.thought.tokens

    @property
    def spent_tokens(self) -> int:
        """What the run is likely to have cost so far, its input included."""
        return self.asked_tokens + self.output_tokens

    @property
    def asked_tokens(self) -> int:
        """What it is likely to have cost until the answer's first word: the input, and the calls before it."""
        return sum(call.total_tokens for call in self.earlier_calls) + self.prompt_tokens

    def report(self, usage: UsageReported) -> None:
        """Take notice of what the provider counts so far; the last report counts."""
        self.reported, self.reported_at = usage, self.output_tokens

    def progress(self) -> RunProgress:
        """Return what is to be kept."""
        return RunProgress(text=self.log.text, events=tuple(self.log.events), prompt_tokens=self.asked_tokens)

    def call_id(self) -> str:
        """Return the id of the next call; the ledger knows a call by it."""
        return f"{self.run.run_id}:{self.run.attempt}:{len(self.earlier_calls) + 1}"

    def calls(self) -> tuple[ModelCall, ...]:
        """Return every call, the answer's by the provider's figures, or by an estimate where it gave none."""
        said, prompt = self.output_tokens, self.prompt_tokens
        if self.reported is None and not said:
            return tuple(self.earlier_calls)
        estimated = UsageReported(prompt, said, prompt + said, reasoning_tokens=self.thought.tokens)
        is_final = self.ended is not None and self.reported_at == said
        figures, is_estimated = charged_usage(self.reported, estimated, is_final=is_final)
        answer = call_of(
            figures, call_id=self.call_id(), purpose="answer", model=self.run.model, is_estimated=is_estimated
        )
        return (*self.earlier_calls, answer)

    def result(self, error_code: str) -> RunResult:
        """Return how the run ends, when it ends for this reason or, without a code, as somebody wished."""
        is_stopped = self.halt == Halt.STOP
        is_interrupted = self.halt in (Halt.SHUTDOWN, Halt.HAND_OVER)
        code = "" if is_stopped else INTERRUPTED if is_interrupted else error_code or self._shortcoming()
        state = RunState.STOPPED if is_stopped else RunState.FAILED if code else RunState.FINISHED
        return RunResult(
            state=state,
            text=self.log.text,
            events=tuple(self.log.events),
            calls=self.calls(),
            error_code=code,
            retry_after_seconds=self.retry_after_seconds if code else None,
            stats=self.stats,
        )

    def _shortcoming(self) -> str:
        """Return by its error code what is wrong with an answer that the provider has finished; nothing when whole."""
        reason = self.ended.finish_reason if self.ended is not None else "stop"
        if reason in REASONS_OF_FILTER:
            return ModelFilteredAnswer.code
        if not self.log.text.strip():
            return ModelEmptyAnswer.code
        return ModelReachedLength.code if reason in REASONS_OF_LENGTH else ""


def call_of(figures: UsageReported, *, call_id: str, purpose: str, model: str, is_estimated: bool) -> ModelCall:
    """Return a call as the ledger gets it."""
    return ModelCall(
        call_id=call_id,
        purpose=purpose,
        model=model,
        input_tokens=figures.prompt_tokens,
        cached_tokens=figures.cached_tokens,
        output_tokens=figures.completion_tokens,
        reasoning_tokens=figures.reasoning_tokens,
        total_tokens=figures.total_tokens,
        is_estimated=is_estimated,
    )


def started_of(lives: Sequence[LiveRun]) -> list[StartedRun]:
    """Return the runs as operations know them."""
    return [live.run for live in lives]
