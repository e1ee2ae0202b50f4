"""Every write of conversations and runs.

Whoever writes events of a conversation locks its row first and holds it to the commit: that makes the order of ids the
order of commits, which is what the outbox keeps.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models import QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils.dateparse import parse_datetime

from chat.bookkeeping import MOST_TOKENS, NewHistory, count_histories, insert_histories
from chat.contracts import ChatStatus, Role, RunResult, RunState, StartedRun, TurnRequest, Usage
from chat.memory.budget import estimate_text
from chat.models import AgentChat, ChatHistory, ChatRun
from outbox.append import append_event
from outbox.database_errors import repeat_on_conflict
from smartflow.accounts.operations import add_token_usage
from smartflow.events import ChatHistoryPersistRequested
from smartflow.kernel.errors import Conflict, Invalid, NotFound
from smartflow.kernel.ids import new_uuid
from smartflow.kernel.text import noop as _

TITLE_MAX_CHARACTERS = 255
# The code of a run whose executor died; what it had said is kept.
INTERRUPTED = "run_interrupted"


class ConversationNotFound(NotFound):
    """No such conversation for this user: it never was, was deleted, or is somebody else's."""

    code = "40401"
    message = _("This conversation does not exist.")


class RunAlreadyLive(Conflict):
    """The conversation's last turn has not ended; `run_id` names it."""

    code = "40910"
    message = _("The assistant is still answering your last message. Wait for it to finish.")


class RunNotOwned(Conflict):
    """The run has ended, or another executor has it: this one must not write any more."""

    code = "40911"
    message = _("This answer is being continued elsewhere.")


class ConversationTitleInvalid(Invalid):
    """The title is blank or too long."""

    code = "40005"
    message = _("Give a title of 1 to 255 characters.")


def begin_turn(*, request: TurnRequest, owner: str, lease_seconds: float, now: datetime) -> StartedRun:
    """
    Accept a user's message: the conversation (opened when none is named), the run and the message's event.

    Transaction: one; when it fails nothing exists and nothing was asked of the model.
    Twice:       each call is another turn.
    Raises:      ConversationNotFound; RunAlreadyLive.
    """
    return repeat_on_conflict(lambda: _begin_once(request=request, owner=owner, lease_seconds=lease_seconds, now=now))


def _begin_once(*, request: TurnRequest, owner: str, lease_seconds: float, now: datetime) -> StartedRun:
    with transaction.atomic():
        chat = _open_conversation(request, now) if request.conversation_id is None else _go_on(request, now)
        run = ChatRun.objects.create(
            id=new_uuid(),
            chat_id=chat.chat_id,
            user_id=request.user_id,
            turn_no=chat.turn_count,
            input_text=request.message,
            model=request.model,
            thinking=request.thinking,
            owner=owner,
            lease_until=now + timedelta(seconds=lease_seconds),
            request_id=request.request_id,
            created_at=now,
        )
        _append_message(run, Role.USER, text=request.message, tokens=0, now=now)
    return StartedRun(
        run_id=run.id,
        conversation_id=chat.chat_id,
        user_id=request.user_id,
        turn_no=run.turn_no,
        model=run.model,
        thinking=run.thinking,
        message=run.input_text,
        system_prompt=chat.system_prompt or "",
        owner=owner,
        request_id=run.request_id,
    )


def save_progress(*, run: StartedRun, text: str, prompt_tokens: int, lease_seconds: float, now: datetime) -> None:
    """
    Keep what the assistant has said so far and renew the lease.

    Transaction: one guarded UPDATE.
    Units:       prompt_tokens is the estimate of what was sent, charged if the run dies and no usage was reported.
    Raises:      RunNotOwned.
    """
    saved = _owned(run).update(
        state=RunState.RUNNING,
        started_at=Coalesce("started_at", Value(now)),
        output_text=text,
        prompt_tokens=prompt_tokens,
        lease_until=now + timedelta(seconds=lease_seconds),
    )
    if not saved:
        raise RunNotOwned(run_id=run.run_id)


def finish_run(*, run: StartedRun, result: RunResult, now: datetime) -> None:
    """
    End a run: its state, its text, its usage and the event of the assistant's message with the turn's tokens.

    Transaction: one.
    Twice:       the second call raises; the event's id is made from the run's, so no second one can exist.
    Raises:      RunNotOwned.
    """
    with transaction.atomic():
        _lock_conversations([run.conversation_id])
        _end(_owned(run), run.run_id, result, now)


def end_orphaned_runs(*, now: datetime, limit: int = 100) -> int:
    """
    End live runs whose executor let the lease run out, keeping what was said; return how many.

    Transaction: one per run, fenced by the lease: a run whose executor came back in between is left alone.
    """
    orphans = ChatRun.objects.filter(is_live=True, lease_until__lt=now).order_by("lease_until", "id")
    ended = 0
    for run in list(orphans[:limit]):
        usage = Usage()
        if run.output_text:
            said = estimate_text(run.output_text)
            usage = Usage(
                prompt_tokens=run.prompt_tokens,
                completion_tokens=said,
                total_tokens=run.prompt_tokens + said,
                is_estimated=True,
            )
        result = RunResult(state=RunState.FAILED, text=run.output_text, usage=usage, error_code=INTERRUPTED)
        try:
            with transaction.atomic():
                _lock_conversations([run.chat_id])
                # the text too: an owner that lives has saved more of it since
                same = ChatRun.objects.filter(is_live=True, lease_until__lt=now, output_text=run.output_text)
                _end(same, run.id, result, now)
        except RunNotOwned:
            continue
        ended += 1
    return ended


def record_messages(*, events: Mapping[str, ChatHistoryPersistRequested]) -> None:
    """
    Write messages to chat_histories and add them to the three sums of rule B.

    Transaction: the dispatcher's, with `consumed`; six statements however many messages.
    Order:       conversations, users, history: the same in every writer, so that none waits in a circle.
    Shape:       event id → event, oldest first.
    Twice:       changes nothing; the row carries the event's id.
    Raises:      ConversationNotFound when a conversation's row is gone for good; Invalid for a wrong occurred_at or a
                 number of tokens that no column holds.
    """
    wanted = {event.conversation_id for event in events.values()}
    pk_of = _lock_conversation_keys(wanted)
    if wanted - pk_of.keys():
        raise ConversationNotFound
    known = set(ChatHistory.objects.filter(source_event_id__in=list(events)).values_list("source_event_id", flat=True))
    histories = [_history(event, event_id) for event_id, event in events.items() if event_id not in known]
    usage: Counter[int] = Counter()
    for history in histories:
        usage[history.user_id] += history.tokens_consumed
    add_token_usage(tokens_by_user=usage)
    insert_histories(histories)
    count_histories(histories=histories, pk_of=pk_of)


def _history(event: ChatHistoryPersistRequested, event_id: str) -> NewHistory:
    occurred_at = parse_datetime(event.occurred_at)
    if occurred_at is None:
        raise Invalid("occurred_at is no date and time")
    if event.tokens_consumed > MOST_TOKENS:
        raise Invalid("tokens_consumed is too large")
    return NewHistory(
        chat_id=event.conversation_id,
        user_id=event.user_id,
        message_content=event.message,
        role=event.role,
        tokens_consumed=max(0, event.tokens_consumed),
        source_event_id=event_id,
        run_id=event.run_id,
        created_at=occurred_at if occurred_at.tzinfo else occurred_at.replace(tzinfo=UTC),
    )


def change_conversation(
    *, user_id: int, conversation_id: str, title: str | None = None, status: ChatStatus | None = None
) -> None:
    """
    Give a conversation a title of the user's own, archive it or bring it back; None leaves a value as it is.

    Transaction: one. Twice: no effect. Raises: ConversationNotFound, ConversationTitleInvalid.
    """
    values: dict[str, str] = {}
    if title is not None:
        values["title"] = title.strip()
        if not 1 <= len(values["title"]) <= TITLE_MAX_CHARACTERS:
            raise ConversationTitleInvalid(fields={"title": ConversationTitleInvalid.message})
    if status is not None:
        values["status"] = status
    _update_own(user_id, conversation_id, **values)


def delete_conversation(*, user_id: int, conversation_id: str, now: datetime) -> None:
    """
    Hide a conversation from its owner for good; the rows stay, because the ledgers add up over them.

    A run that is under way ends as usual, unseen. Raises: ConversationNotFound, also the second time.
    """
    _update_own(user_id, conversation_id, deleted_at=now)


def _update_own(user_id: int, conversation_id: str, **values: object) -> None:
    def update() -> None:
        with transaction.atomic():
            # First the row, then the change by its primary key: an UPDATE by user and chat_id may go through an index
            # of the user's, and then deadlocks with a writer that moves the row within that index.
            chat = _lock_own(user_id, conversation_id)
            AgentChat.objects.filter(pk=chat.pk).update(**values)

    repeat_on_conflict(update)


def _open_conversation(request: TurnRequest, now: datetime) -> AgentChat:
    return AgentChat.objects.create(
        chat_id=new_uuid(),
        user_id=request.user_id,
        model=request.model,
        status=ChatStatus.ACTIVE,
        turn_count=1,
        last_message_at=now,
    )


def _go_on(request: TurnRequest, now: datetime) -> AgentChat:
    """Count one more turn of a conversation, holding its row, unless a run of it is live."""
    chat = _lock_own(request.user_id, request.conversation_id or "")
    live = ChatRun.objects.filter(chat__chat_id=chat.chat_id, is_live=True).values_list("id", flat=True).first()
    if live is not None:
        raise RunAlreadyLive(run_id=live)
    chat.turn_count += 1
    chat.last_message_at = now
    chat.status = ChatStatus.ACTIVE
    chat.save(update_fields=["turn_count", "last_message_at", "status", "updated_at"])
    return chat


def _lock_own(user_id: int, conversation_id: str) -> AgentChat:
    chat = _lock_conversations([conversation_id]).get(conversation_id)
    if chat is None or chat.user_id != user_id or chat.deleted_at is not None:
        raise ConversationNotFound
    return chat


def _lock_conversations(conversation_ids: Collection[str]) -> dict[str, AgentChat]:
    """
    Lock the conversations' rows, deleted or not, and return those there are.

    By primary key only, in its order. A lock through the unique key holds that index too, which the foreign keys of
    runs and messages look into: on MariaDB a turn that waited for the row then met a consumer that was about to insert.
    """
    return {chat.chat_id: chat for chat in _locked(conversation_ids)}


def _lock_conversation_keys(conversation_ids: Collection[str]) -> dict[str, int]:
    """Do the same and return their primary keys: the other values of hundreds of rows would cost more than the lock."""
    return dict(_locked(conversation_ids).values_list("chat_id", "pk"))


def _locked(conversation_ids: Collection[str]) -> QuerySet[AgentChat]:
    ids = list(AgentChat.objects.filter(chat_id__in=conversation_ids).order_by().values_list("pk", flat=True))
    chats = AgentChat.objects.filter(pk__in=ids).order_by("pk")
    return chats.select_for_update() if connection.features.has_select_for_update else chats


def _owned(run: StartedRun) -> QuerySet[ChatRun]:
    return ChatRun.objects.filter(is_live=True, owner=run.owner, id=run.run_id)


def _end(guard: QuerySet[ChatRun], run_id: str, result: RunResult, now: datetime) -> None:
    ended = guard.filter(id=run_id).update(
        state=result.state,
        is_live=None,
        output_text=result.text,
        error_code=result.error_code,
        prompt_tokens=result.usage.prompt_tokens,
        completion_tokens=result.usage.completion_tokens,
        total_tokens=result.usage.total_tokens,
        is_usage_estimated=result.usage.is_estimated,
        lease_until=None,
        started_at=Coalesce("started_at", Value(now)),
        finished_at=now,
    )
    if not ended:
        raise RunNotOwned(run_id=run_id)
    if result.text or result.usage.total_tokens:
        run = ChatRun.objects.only("id", "user_id", "chat_id", "request_id").get(id=run_id)
        _append_message(run, Role.ASSISTANT, text=result.text, tokens=result.usage.total_tokens, now=now)


def _append_message(run: ChatRun, role: Role, *, text: str, tokens: int, now: datetime) -> None:
    append_event(
        event=ChatHistoryPersistRequested(
            user_id=run.user_id,
            conversation_id=run.chat_id,
            run_id=run.id,
            role=role,
            message=text,
            tokens_consumed=tokens,
            occurred_at=now.isoformat(),
        ),
        key=run.chat_id,
        event_id=f"{run.id}:{role}",
        request_id=run.request_id,
        now=now,
    )
