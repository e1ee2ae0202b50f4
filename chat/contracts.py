"""What may leave the chat app: plain values, no Django."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from smartflow.accounts.contracts import ModelCall


class RunState(StrEnum):
    """A run's states; the last three are terminal."""

    QUEUED = "queued"  # written by begin_turn
    RUNNING = "running"  # the executor has called the model
    FINISHED = "finished"  # the model said it was done
    FAILED = "failed"  # cut, refused or orphaned; what was said is kept
    STOPPED = "stopped"  # ended by its owner


LIVE_STATES = (RunState.QUEUED, RunState.RUNNING)


class ChatStatus(StrEnum):
    """A conversation's states."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class Role(StrEnum):
    """Who said it."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class RunKind(StrEnum):
    """What a run was begun for."""

    TURN = "turn"  # the user said something
    REGENERATE = "regenerate"  # another variant of the last answer
    CONTINUE = "continue"  # goes on where an interrupted answer ends


class TimelineKind(StrEnum):
    """What an entry of the timeline is."""

    USER_TEXT = "user_text"
    ASSISTANT_TEXT = "assistant_text"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    CONFIRM_REQUEST = "confirm_request"
    BUSINESS_CARD = "business_card"
    SCHEDULE_COMPLETED = "schedule_completed"
    THINKING_SUMMARY = "thinking_summary"
    CONTEXT_COMPACTED = "context_compacted"  # from here on the model knows what came before by a summary
    VARIANT_SELECTED = "variant_selected"  # which of a turn's answers counts


@dataclass(frozen=True, kw_only=True)
class TurnRequest:
    """What a user asks for in one turn. `conversation_id` is None when a new conversation is to be opened."""

    user_id: int
    message: str
    conversation_id: str | None
    model: str  # an alias: worker or strategist
    thinking: str  # auto, true or false
    request_id: str
    language: str = "en"  # what the user is told in, where the assistant's own words are not meant
    key: str = ""  # of the client's; what is sent with the same key again is the same turn


@dataclass(frozen=True, kw_only=True)
class StartedRun:
    """
    A run that is committed and, when `owner` is set, owned by an executor until its lease runs out.

    `owner` and `epoch` are the fence: whoever writes with older ones is refused. `attempt` tells a run that is
    executed again, because it had said nothing, from its first try.
    """

    run_id: str
    conversation_id: str
    user_id: int
    turn_no: int
    model: str
    thinking: str
    message: str
    system_prompt: str
    owner: str
    request_id: str
    kind: str = RunKind.TURN
    variant_no: int = 1
    attempt: int = 1
    epoch: int = 1
    held_tokens: int = 0
    language: str = "en"
    # Of the conversation, as it was when the run was begun or taken up.
    summary: str = ""
    summary_covers_turn: int = 0
    # The timeline's last seq before this turn, which names the history exactly; -1 when it is not known.
    history_seq: int = -1


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """What a run has said so far; `events` are the structured ones, each {"at": characters before it, "data": …}."""

    text: str
    events: tuple[dict[str, Any], ...] = ()
    prompt_tokens: int = 0  # an estimate of what was sent; charged if the run dies and no usage was reported


@dataclass(frozen=True, kw_only=True)
class ContextStats:
    """Estimated tokens of what the model was last sent, by part; `total` is their sum, `budget` what was allowed."""

    msg0: int = 0  # rules and tools
    msg1: int = 0  # the conversation
    msg2: int = 0  # the workspace of the present stage
    msg3: int = 0  # state, memory and what the user says now
    total: int = 0
    budget: int = 0


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended. `error_code` is empty unless the state is failed."""

    state: RunState
    text: str
    calls: tuple[ModelCall, ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    error_code: str = ""
    retry_after_seconds: int | None = None
    stats: ContextStats | None = None  # what the model was sent; None when it was not called

    @property
    def total_tokens(self) -> int:
        """What the whole run cost, every call of a model included."""
        return sum(call.total_tokens for call in self.calls)


@dataclass(frozen=True, kw_only=True)
class RunSnapshot:
    """A run as the database has it: enough to show the whole of it to a reader who comes from anywhere."""

    run_id: str
    conversation_id: str
    user_id: int
    model: str
    attempt: int
    state: RunState
    text: str
    events: tuple[dict[str, Any], ...]
    error_code: str
    retry_after_seconds: int | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class HistoryMessage:
    """One message as the model gets it."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class TimelineItem:
    """One entry of a conversation's timeline."""

    id: int
    seq: int
    kind: str
    role: str
    content: str
    payload: dict[str, object]
    tokens_consumed: int
    created_at: datetime
