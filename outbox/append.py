"""Step 1: put an event row into the caller's transaction. Called by operations, beside the business write."""

from datetime import datetime

from django.db import connection

from outbox.envelope import encode_stored
from outbox.models import OutboxMessage
from outbox.nudge import nudge_after_commit
from outbox.registry import topic_for
from smartflow.events import Event
from smartflow.kernel.ids import new_uuid


class AppendOutsideTransaction(RuntimeError):
    """There is no transaction to join, so the event could survive without its business write, or the reverse."""


def append_event(*, event: Event, key: str, now: datetime, event_id: str | None = None, request_id: str = "") -> int:
    """
    Write one event row into the caller's open transaction and return its id.

    Transaction: the caller's; the row exists if and only if the business write does. One INSERT, no reads.
    Order:       commit order per key, provided the caller holds a lock on the aggregate's row before it appends
                 (AgentChat for conversations); ids are given before commit, so without it a lower id may show later.
    Shape:       `key` is the Kafka key, at most 128 characters; `event_id` is unique, a new UUID when omitted.
    Raises:      AppendOutsideTransaction; UnknownEventType; IntegrityError when the event_id was appended before.
    """
    if not connection.in_atomic_block:
        raise AppendOutsideTransaction("append_event needs transaction.atomic() around the business write and itself")
    topic = topic_for(event.event_type)
    event_id = event_id or new_uuid()
    row = OutboxMessage.objects.create(
        event_id=event_id,
        biz_type=event.event_type,
        topic=topic,
        message_key=key,
        payload=encode_stored(event=event, event_id=event_id, aggregate_id=key),
        request_id=request_id,
        created_at=now,
        updated_at=now,
    )
    nudge_after_commit()
    return row.pk
