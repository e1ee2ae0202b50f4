"""Asks the model for titles of conversations whose first answer has ended. Called by a job; knows no provider."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError

from chat import operations, queries
from chat.contracts import HistoryMessage, Role
from chat.llm.completion import complete
from chat.llm.port import ChatModel, Completion, ModelError, ModelEvent, ModelRequest, ModelTimedOut
from chat.memory.titles import INSTRUCTION, MOST_CHARACTERS_OF_A_MESSAGE, MOST_MESSAGES, clean_title
from chat.memory.titles import describe_conversation as describe
from chat.operations.titles import PURPOSE, UntitledConversation
from outbox.database_errors import is_away
from smartflow.accounts.contracts import ModelCall
from smartflow.kernel.clock import Clock

logger = logging.getLogger(__name__)

MODEL = "worker"
MOST_OUTPUT_TOKENS = 40
LIMIT_SECONDS = 4.0
# As many calls at once as one job makes; the job lasts as long as the slowest of them.
MOST_AT_ONCE = 16


@dataclass(frozen=True)
class _Answer:
    completion: Completion | None
    error: ModelError | None = None


def make_titles(*, build_model: Callable[[], ChatModel], clock: Clock) -> int:
    """
    Make the titles that are due; return how many conversations got one.

    Transaction: none while the model is asked; one for each title, with what its call cost.
                 One that cannot be saved is logged, and the conversation comes up again.
    Twice:       safe, also at once: each conversation is claimed, and a title is never written over another.
    """
    claimed = operations.claim_titles(now=clock(), limit=MOST_AT_ONCE)
    if not claimed:
        return 0
    requests = [_request(conversation) for conversation in claimed]
    answers = asyncio.run(_ask(build_model(), requests))
    return sum(_try_to_save(one, answer, clock) for one, answer in zip(claimed, answers, strict=True))


def _request(conversation: UntitledConversation) -> ModelRequest:
    messages = queries.list_latest_messages(
        conversation_id=conversation.conversation_id,
        limit=MOST_MESSAGES,
        most_characters=MOST_CHARACTERS_OF_A_MESSAGE,
    )
    return ModelRequest(
        model=MODEL,
        messages=(HistoryMessage(role=Role.USER, content=describe(messages)),),
        system_prompt=INSTRUCTION,
        thinking="false",
        purpose=PURPOSE,
        max_output_tokens=MOST_OUTPUT_TOKENS,
    )


async def _ask(model: ChatModel, requests: Sequence[ModelRequest]) -> list[_Answer]:
    try:
        return await asyncio.gather(*(_ask_one(_Hurried(model), request) for request in requests))
    finally:
        await model.aclose()


async def _ask_one(model: ChatModel, request: ModelRequest) -> _Answer:
    try:
        return _Answer(await complete(model, request))
    except ModelError as error:
        return _Answer(error.partial, error)
    except Exception:  # the others' titles are not to be lost with this one
        logger.exception("Asking for a title failed")
        return _Answer(None)


class _Hurried:
    """A model that has LIMIT_SECONDS for the whole of an answer; what it had said by then is still paid for."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        ends_at = asyncio.get_running_loop().time() + LIMIT_SECONDS
        async with aclosing(self._model.stream(request)) as events:
            while True:
                try:
                    async with asyncio.timeout_at(ends_at):
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise ModelTimedOut("no whole title in time") from None
                yield event

    async def aclose(self) -> None:
        await self._model.aclose()


def _try_to_save(conversation: UntitledConversation, answer: _Answer, clock: Clock) -> bool:
    try:
        return _save(conversation, answer, clock)
    except Exception as error:  # the others' titles, and what they cost, are not to be lost with this one
        if isinstance(error, DatabaseError | InterfaceError) and is_away(error):
            raise
        logger.exception("A title could not be saved", extra={"conversation_id": conversation.conversation_id})
        return False


def _save(conversation: UntitledConversation, answer: _Answer, clock: Clock) -> bool:
    calls = (_call(conversation, answer.completion),) if answer.completion else ()
    title = clean_title(answer.completion.text) if answer.completion and not answer.error else ""
    is_saved = operations.save_title(conversation=conversation, title=title, calls=calls, now=clock())
    if not title:
        logger.info(
            "A title could not be made",
            extra={
                "conversation_id": conversation.conversation_id,
                "attempt": conversation.attempt,
                "error": answer.error.code if answer.error else "nothing that could be a title",
            },
        )
    return is_saved


def _call(conversation: UntitledConversation, completion: Completion) -> ModelCall:
    usage = completion.usage
    return ModelCall(
        call_id=f"{conversation.conversation_id}:{PURPOSE}:{conversation.attempt}",
        purpose=PURPOSE,
        model=MODEL,
        input_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        total_tokens=usage.total_tokens,
        is_estimated=completion.is_estimated,
    )
