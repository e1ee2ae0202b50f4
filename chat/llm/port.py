"""What an executor may know of a language model: a request, a stream of events, and named failures.

Pure. Implemented by openai_client.py and offline.py, chosen in factory.py. Nothing here knows HTTP or a provider.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from chat.contracts import HistoryMessage
from smartflow.kernel.text import bounded
from smartflow.kernel.text import noop as _

MAX_DETAIL_BYTES = 300


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One call. `messages` is the kept history and, last, what the student says now."""

    model: str  # an alias: worker or strategist
    messages: tuple[HistoryMessage, ...]
    system_prompt: str = ""
    thinking: str = "auto"  # auto, true or false
    run_id: str = ""
    purpose: str = "answer"  # what the tokens are booked under: answer, title, summary; what was lost: chat
    max_output_tokens: int | None = None  # None: as many as the model likes


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer; never empty, blanks and line breaks as the model said them."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next piece of what the model thinks aloud; never part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class UsageReported:
    """
    Totals of this call as the provider counts them, never all zero.

    May come several times, since some providers send running totals: the last one counts. None at all means that
    the provider said nothing and the reader has to estimate.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = 0  # part of prompt_tokens
    reasoning_tokens: int = 0  # part of completion_tokens


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """
    The next piece of one tool call.

    `index` (0, 1, ...) and `call_id` are the call's own from its first piece to its last, whatever the provider does;
    `name` comes once, `arguments` joined are its JSON.
    """

    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call. The model wrote `arguments`: usually JSON, sometimes not."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The provider said that it has finished, and why: stop, tool_calls, or one of those below."""

    finish_reason: str
    tool_calls: tuple[ToolCall, ...] = ()


# Why a provider finishes what is no whole answer, by all the names that they have for it.
REASONS_OF_FILTER = {"content_filter", "sensitive"}
REASONS_OF_LENGTH = {"length", "max_tokens", "model_context_window_exceeded"}

ModelEvent = TextDelta | ReasoningDelta | ToolCallDelta | UsageReported | StreamEnded


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer read as a whole."""

    text: str
    usage: UsageReported
    is_estimated: bool  # the provider reported no usage, or none of the whole answer
    finish_reason: str = ""  # empty: it was not finished


class ChatModel(Protocol):
    """A language model."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """
        Send the request and yield what comes back.

        Order:  exactly one StreamEnded, last; a stream that stops without one has raised.
        Twice:  each call asks the model anew and costs anew.
        Closed: closing the generator, or cancelling its reader, closes the call to the provider at once.
        Raises: ModelError, also after some events were yielded; those stay valid.
        """

    async def aclose(self) -> None:
        """Give back connections. A later stream() opens new ones."""


class ModelError(Exception):
    """
    The model did not give a whole answer; never raised itself.

    `message` is for the student and fixed. `detail` is for the log: bounded, scrubbed by whoever raises.
    """

    code: ClassVar[str]
    message: ClassVar[str]
    is_retryable: ClassVar[bool] = False  # may the same call succeed a moment later, at no double cost?

    def __init__(self, detail: str = "", *, retry_after_seconds: int | None = None) -> None:
        super().__init__(self.message)
        self.detail = bounded(detail, max_bytes=MAX_DETAIL_BYTES)
        self.retry_after_seconds = retry_after_seconds
        self.partial: Completion | None = None  # what complete() had got, and has to be paid for


class ModelUnreachable(ModelError):
    """No connection, or it broke before the provider answered."""

    code = "model_unreachable"
    message = _("The assistant cannot be reached at the moment. Please try again in a minute.")
    is_retryable = True


class ModelTimedOut(ModelError):
    """Connected, then silence. Not retryable: the provider may still be working on it, and charge for both."""

    code = "model_timeout"
    message = _("The assistant took too long to answer. Please try again, perhaps with a shorter question.")


class ModelRateLimited(ModelError):
    """The provider asks to wait; `retry_after_seconds` says how long when it told."""

    code = "model_rate_limited"
    message = _("The assistant is very busy right now. Please wait a little and try again.")
    is_retryable = True


class ModelRefusedCredentials(ModelError):
    """Wrong key, no access, or an account without credit: only an operator can mend it."""

    code = "model_refused_credentials"
    message = _("The assistant is not set up correctly on our side. We have to repair it; your message is kept.")


class ModelRejectedRequest(ModelError):
    """The provider will not accept this request: an unknown model, a field it does not know, its content policy."""

    code = "model_rejected_request"
    message = _("The assistant did not accept this request. Please put it another way, or choose another model.")


class ModelContextTooLong(ModelError):
    """The conversation does not fit the model."""

    code = "model_context_too_long"
    message = _("This conversation is too long for the assistant. Please shorten your message or start a new one.")


class ModelCut(ModelError):
    """The stream stopped without a finish reason: what came is a fragment, whatever it looks like."""

    code = "model_cut"
    message = _("The answer was interrupted. What you see is kept; you can ask the assistant to go on.")
    is_retryable = True


class ModelEmptyAnswer(ModelError):
    """The provider finished without a word for the student."""

    code = "model_empty_answer"
    message = _("The assistant gave no answer. Please try again, or put it another way.")


class ModelFilteredAnswer(ModelError):
    """The provider withheld the answer, or the rest of it, by its content policy."""

    code = "model_filtered_answer"
    message = _("The assistant's provider did not let this answer through. Please put it another way.")


class ModelReachedLength(ModelError):
    """The answer became as long as the provider, or what is left of the quota, lets it be."""

    code = "model_reached_length"
    message = _("The answer became as long as it may be. What you see is kept; you can ask the assistant to go on.")


class ModelBadResponse(ModelError):
    """The answer is not what a model sends: a web page, broken JSON."""

    code = "model_bad_response"
    message = _("The assistant sent something that we cannot read. Please try again.")


class ModelServerError(ModelError):
    """The provider failed, before its answer or in the middle of it."""

    code = "model_server_error"
    message = _("The assistant has a technical problem at the moment. Please try again in a minute.")
    is_retryable = True
