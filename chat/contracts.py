"""What may leave the chat app: plain values, no Django."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


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


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one run; `is_estimated` when the provider reported none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    is_estimated: bool = False


@dataclass(frozen=True, kw_only=True)
class TurnRequest:
    """What a user asks for in one turn. `conversation_id` is None when a new conversation is to be opened."""

    user_id: int
    message: str
    conversation_id: str | None
    model: str  # an alias: worker or strategist
    thinking: str  # auto, true or false
    request_id: str


@dataclass(frozen=True, kw_only=True)
class StartedRun:
    """A run that begin_turn has committed and an executor may now own."""

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


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended. `error_code` is empty unless the state is failed."""

    state: RunState
    text: str
    usage: Usage
    error_code: str = ""


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
