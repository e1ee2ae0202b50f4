"""What events leave behind: the history, the sums of rule B, the ledger, the state snapshot. Called by handlers."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.models import F
from django.utils.dateparse import parse_datetime

from chat.bookkeeping import (
    MOST_TOKENS,
    NewHistory,
    NewSnapshot,
    count_histories,
    insert_histories,
    upsert_snapshots,
)
from chat.models import AgentChat, ChatHistory
from chat.operations.conversations import lock_conversation_keys
from chat.operations.messages import answer_event_id
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


class SnapshotUnreadable(Invalid):
    """A state cannot be read, and no retry will mend it."""


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
    entries = [entry for event_id, event in new.items() for entry in _entries(event, event_id)]
    usage: Counter[int] = Counter()
    for history in histories:
        usage[history.user_id] += history.tokens_consumed
    add_token_usage(tokens_by_user=usage)
    insert_histories(histories)
    record_calls(entries=entries)
    count_histories(histories=histories, pk_of=pk_of)


def record_token_adjustments(*, events: Mapping[str, ChatTokenUsageAdjustRequested]) -> None:
    """
    Add calls that were made aside from a turn to the ledger and the three sums; in the history, to the turn's answer.

    Transaction: the dispatcher's.
    Order:       as record_messages.
    Twice:       changes nothing; the ledger knows the call.
    Raises:      ConversationNotFound; Invalid.
    """
    wanted = {event.conversation_id for event in events.values()}
    pk_of = lock_conversation_keys(conversation_ids=wanted)
    if wanted - pk_of.keys():
        raise ConversationNotFound
    known = list_known_entries(entry_keys=list(events))
    new = {event_id: event for event_id, event in events.items() if event_id not in known}
    entries = [_adjustment(event, event_id) for event_id, event in new.items()]
    usage: Counter[int] = Counter()
    for event in new.values():
        usage[event.user_id] += event.tokens_delta
    add_token_usage(tokens_by_user=usage)
    for event in new.values():
        answers = ChatHistory.objects.filter(source_event_id=answer_event_id(run_id=event.run_id))
        answers.update(tokens_consumed=F("tokens_consumed") + event.tokens_delta)
    record_calls(entries=entries)
    for event in new.values():
        chats = AgentChat.objects.filter(pk=pk_of[event.conversation_id])
        chats.update(tokens_total=F("tokens_total") + event.tokens_delta)


def _adjustment(event: ChatTokenUsageAdjustRequested, event_id: str) -> NewEntry:
    call = _call(event.call)
    if call.total_tokens != event.tokens_delta:
        raise Invalid("the call does not add up to tokens_delta")
    return NewEntry(
        entry_key=event_id,
        user_id=event.user_id,
        conversation_id=event.conversation_id,
        run_id=event.run_id,
        call=call,
        created_at=_moment(event.triggered_at),
    )


def record_snapshots(*, events: Sequence[AgentStateSnapshotPersist], now: datetime) -> None:
    """
    Keep the assistant's state in each conversation unless a newer one is kept already.

    Transaction: the dispatcher's; one statement however many conversations.
    Twice, late: changes nothing; the revision decides, not the order of arrival.
    Raises:      SnapshotUnreadable, and nothing of the batch is written.
    """
    newest: dict[str, NewSnapshot] = {}
    for event in events:
        snapshot = _snapshot(event)
        kept = newest.get(snapshot.conversation_id)
        if kept is None or kept.revision < snapshot.revision:
            newest[snapshot.conversation_id] = snapshot
    upsert_snapshots(snapshots=list(newest.values()), now=now)


def _snapshot(event: AgentStateSnapshotPersist) -> NewSnapshot:
    try:
        state = json.loads(event.snapshot_json)
    except ValueError as error:
        raise SnapshotUnreadable("snapshot_json is no JSON") from error
    if not isinstance(state, dict) or type(state.get("version")) is not int:
        raise SnapshotUnreadable("snapshot_json is no object with a version")
    if not 1 <= len(event.phase) <= 32 or not 1 <= len(event.conversation_id) <= 36:
        raise SnapshotUnreadable("phase or conversation_id is no text that a column holds")
    if not 0 <= event.revision < 2**63 or not 0 < event.user_id < 2**31:
        raise SnapshotUnreadable("revision or user_id is no number that a column holds")
    return NewSnapshot(event.conversation_id, event.user_id, event.phase, event.snapshot_json, event.revision)


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
