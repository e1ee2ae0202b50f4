"""Step 1: put event rows into the caller's transaction. Called by operations, beside the business write."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from outbox.envelope import encode_stored
from outbox.models import OutboxMessage
from outbox.registry import topic_for
from outbox.shards import shard_of
from outbox.tracing import note_append
from outbox.wakeup import wake_after_commit
from smartflow.api.rows import insert_rows
from smartflow.events import Event
from smartflow.kernel.ids import new_uuid


class AppendOutsideTransaction(RuntimeError):
    """There is no transaction to join, so the event could survive without its business write, or the reverse."""


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event to append. `key` is the Kafka key, at most 128 characters; `event_id` is a new UUID when omitted."""

    event: Event
    key: str
    event_id: str | None = None


def append_event(*, event: Event, key: str, now: datetime, event_id: str | None = None, request_id: str = "") -> int:
    """
    Write one event row into the caller's open transaction and return its id.

    Transaction: the caller's; the row exists if and only if the business write does. One INSERT, no reads.
    Order:       commit order per key, provided the caller holds a lock on the aggregate's row before it appends
                 (AgentChat for conversations); ids are given before commit, so without it a lower id may show later.
    Shape:       `key` is the Kafka key, at most 128 characters; `event_id` is unique, a new UUID when omitted.
    Raises:      AppendOutsideTransaction; UnknownEventType; IntegrityError when the event_id was appended before.
    Source:      ADR 0007.
    """
    _check_transaction()
    row = _row(NewEvent(event=event, key=key, event_id=event_id), now, request_id)
    row_id = insert_rows(OutboxMessage, [row])
    wake_after_commit(row["shard"])
    return row_id


def append_events(*, events: Sequence[NewEvent], now: datetime, request_id: str = "") -> None:
    """
    Write many event rows in one INSERT (SQLite takes a few dozen rows at once); everything else as append_event.

    Order: as given, for events of one key.
    """
    _check_transaction()
    rows = [_row(new, now, request_id) for new in events]
    if rows:
        insert_rows(OutboxMessage, rows)
        wake_after_commit(*{row["shard"] for row in rows})


def _check_transaction() -> None:
    if not connection.in_atomic_block:
        raise AppendOutsideTransaction("an event needs transaction.atomic() around the business write and itself")


def _row(new: NewEvent, now: datetime, request_id: str) -> dict[str, Any]:
    event_id = new.event_id or new_uuid()
    shard = shard_of(new.key)
    return {
        "event_id": event_id,
        "biz_type": new.event.event_type,
        "topic": topic_for(new.event.event_type),
        "message_key": new.key,
        "payload": encode_stored(event=new.event, event_id=event_id, aggregate_id=new.key),
        "shard": shard,
        "ready_shard": shard,
        "request_id": request_id,
        "traceparent": note_append(new.event.event_type),
        "created_at": now,
        "updated_at": now,
    }
