"""What events leave behind: the history, the sums of rule B, the ledger, the state snapshot. Called by handlers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.models import F
from django.utils.dateparse import parse_datetime

from chat.bookkeeping import MOST_TOKENS, NewHistory, count_histories, insert_histories
from chat.contracts import Role
from chat.models import AgentChat, AgentStateSnapshot, ChatHistory
from chat.operations.conversations import lock_conversation_keys
from chat.queries import ConversationNotFound
from smartflow.accounts.contracts import ModelCall
from smartflow.accounts.ledger import NewEntry, list_known_entries, record_calls
from smartflow.accounts.operations import add_token_usage
from smartflow.events import (
    AgentStateSnapshotPersist,
    ChatHistoryPersistRequested,
    ChatHistoryPersistRequestedV1,
    ChatTokenUsageAdjustRequested,
)
from smartflow.kernel.errors import Invalid


def record_messages(*, events: Mapping[str, ChatHistoryPersistRequestedV1]) -> None:
    """
    Write messages to chat_histories, their calls to the ledger, and add them to the three sums of rule B.

    Transaction: the dispatcher's, with `consumed`; seven statements however many messages.
    Order:       conversations, users, history, ledger: the same in every writer, so that none waits in a circle.
    Shape:       event id → event, oldest first.
    Twice:       changes nothing; the row carries the event's id.
    Raises:      ConversationNotFound when a conversation's row is gone for good; Invalid for a wrong occurred_at, a
                 call that cannot be read, or a number of tokens that no column holds.
    """
    wanted = {event.conversation_id for event in events.values()}
    pk_of = lock_conversation_keys(conversation_ids=wanted)
    if wanted - pk_of.keys():
        raise ConversationNotFound
    known = set(ChatHistory.objects.filter(source_event_id__in=list(events)).values_list("source_event_id", flat=True))
    new = {event_id: event for event_id, event in events.items() if event_id not in known}
    histories = [_history(event, event_id) for event_id, event in new.items()]
    usage: Counter[int] = Counter()
    for history in histories:
        usage[history.user_id] += history.tokens_consumed
    add_token_usage(tokens_by_user=usage)
    insert_histories(histories)
    record_calls(entries=[entry for event_id, event in new.items() for entry in _entries(event, event_id)])
    count_histories(histories=histories, pk_of=pk_of)


def record_token_adjustments(*, events: Mapping[str, ChatTokenUsageAdjustRequested]) -> None:
    """
    Add calls that were made aside from a turn to the ledger and the three sums; in the history, to the turn's answer.

    Transaction: the dispatcher's. Twice: changes nothing; the ledger knows the call.
    Raises:      ConversationNotFound; Invalid.
    """
    pk_of = lock_conversation_keys(conversation_ids={event.conversation_id for event in events.values()})
    known = list_known_entries(entry_keys=list(events))
    for event_id, event in events.items():
        if event.conversation_id not in pk_of:
            raise ConversationNotFound
        if event_id in known:
            continue
        tokens = event.tokens_delta
        add_token_usage(tokens_by_user={event.user_id: tokens})
        answers = ChatHistory.objects.filter(source_event_id=f"{event.run_id}:{Role.ASSISTANT}")
        answers.update(tokens_consumed=F("tokens_consumed") + tokens)
        entry = NewEntry(
            entry_key=event_id,
            user_id=event.user_id,
            conversation_id=event.conversation_id,
            run_id=event.run_id,
            call=_call(event.call),
            created_at=_moment(event.triggered_at),
        )
        record_calls(entries=[entry])
        chats = AgentChat.objects.filter(pk=pk_of[event.conversation_id])
        chats.update(tokens_total=F("tokens_total") + tokens)


def record_snapshot(*, event: AgentStateSnapshotPersist, now: datetime) -> None:
    """
    Keep the assistant's state in a conversation unless a newer one is kept already.

    Transaction: the dispatcher's. Twice, late: changes nothing; the revision decides, not the order of arrival.
    """
    values = {
        "user_id": event.user_id,
        "phase": event.phase,
        "snapshot_json": event.snapshot_json,
        "revision": event.revision,
        "updated_at": now,
    }
    own = AgentStateSnapshot.objects.filter(conversation_id=event.conversation_id)
    if own.filter(revision__lt=event.revision).update(**values) or own.exists():
        return
    AgentStateSnapshot.objects.create(conversation_id=event.conversation_id, created_at=now, **values)


def _history(event: ChatHistoryPersistRequestedV1, event_id: str) -> NewHistory:
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
        created_at=_moment(event.occurred_at),
    )


def _moment(text: str) -> datetime:
    moment = parse_datetime(text)
    if moment is None:
        raise Invalid("occurred_at or triggered_at is no date and time")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _entries(event: ChatHistoryPersistRequestedV1, event_id: str) -> Iterator[NewEntry]:
    for call in _calls(event, event_id):
        yield NewEntry(
            entry_key=call.call_id,
            user_id=event.user_id,
            conversation_id=event.conversation_id,
            run_id=event.run_id,
            call=call,
            created_at=_moment(event.occurred_at),
        )


def _calls(event: ChatHistoryPersistRequestedV1, event_id: str) -> Sequence[ModelCall]:
    """Return the calls of a message. The first version of the event told their sum alone."""
    if isinstance(event, ChatHistoryPersistRequested):
        calls = [_call(values) for values in event.calls]
        if sum(call.total_tokens for call in calls) != max(0, event.tokens_consumed):
            raise Invalid("the calls do not add up to tokens_consumed")
        return calls
    if event.tokens_consumed <= 0:
        return ()
    return [ModelCall(call_id=event_id, purpose="answer", model="", total_tokens=event.tokens_consumed)]


def _call(values: Any) -> ModelCall:
    try:
        call = ModelCall(**values)
    except TypeError as error:
        raise Invalid("a call has other fields than it should") from error
    if not 0 <= call.total_tokens <= MOST_TOKENS:
        raise Invalid("a call's tokens are no number that a column holds")
    return call
