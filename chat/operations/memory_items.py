"""Items of the long-term memory: adding, changing, deleting, bringing back. Each leaves its line in the audit.

The item's row is locked before it is read, so that "before" is what the change met, and of two changes at once neither
undoes the other. People, operators and the assistant all come through here; `by` says who it was.
"""

from dataclasses import fields
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from chat.memory.items import checked_reason, checked_values, content_hash
from chat.memory_contracts import AuditAction, Author, MemoryChange, MemoryStatus, MemoryView, NewMemory
from chat.memory_models import MemoryAuditLog, MemoryItem
from chat.memory_queries import MemoryNotFound, view_of
from chat.models import AgentChat
from chat.queries import ConversationNotFound
from smartflow.kernel.errors import Conflict, Invalid
from smartflow.kernel.text import noop as _

# What of an item the audit keeps: what a change can change.
_KEPT = (*(field.name for field in fields(MemoryChange)), "status")


class MemoryChangeEmpty(Invalid):
    """The change names no column."""

    code = "40063"
    message = _("Name at least one field to change.")


class MemoryDeleted(Conflict):
    """A deleted item is not changed."""

    message = _("This memory item is deleted. Restore it first.")


def create_memory_item(*, user_id: int, item: NewMemory, by: Author, now: datetime) -> MemoryView:
    """
    Add an item.

    Transaction: one, with the audit. Twice: adds another.
    Raises:      as memory.items.checked_values; ConversationNotFound, also for another user's.
    """
    values = checked_values(values=vars(item))
    row = MemoryItem(user_id=user_id, **values, content_hash=content_hash(content=values["content"]))
    row.created_at = row.updated_at = now
    with transaction.atomic():
        _check_conversation(user_id, values)
        row.save(force_insert=True)
        _note(row, AuditAction.CREATE, None, by, now)
        return view_of(row=row)


def change_memory_item(*, user_id: int, item_id: int, change: MemoryChange, by: Author, now: datetime) -> MemoryView:
    """
    Change what was given of an item, and clear what was given as None.

    Transaction: one, with the audit and the item locked; only what differs is written.
    Twice:       no effect and no second line in the audit.
    Raises:      MemoryChangeEmpty, MemoryNotFound, MemoryDeleted, ConversationNotFound; as memory.items.checked_values.
    """
    values = checked_values(values=change.values())
    if not values:
        raise MemoryChangeEmpty
    with transaction.atomic():
        row = _lock(user_id, item_id)
        if row.status == MemoryStatus.DELETED:
            raise MemoryDeleted
        _check_conversation(user_id, values)
        if "content" in values:
            values["content_hash"] = content_hash(content=values["content"])
        _write(row, values, AuditAction.UPDATE, by, now)
        return view_of(row=row)


def delete_memory_item(*, user_id: int, item_id: int, by: Author, now: datetime) -> MemoryView:
    """
    Take an item from the assistant and from the list; restore_memory_item brings it back.

    Transaction: one, with the audit and the item locked. Twice: no effect and no second line in the audit.
    Raises:      MemoryNotFound.
    """
    with transaction.atomic():
        row = _lock(user_id, item_id)
        _write(row, {"status": MemoryStatus.DELETED}, AuditAction.DELETE, by, now)
        return view_of(row=row)


def restore_memory_item(*, user_id: int, item_id: int, by: Author, now: datetime) -> MemoryView:
    """
    Make an archived or deleted item active again.

    Transaction: one, with the audit and the item locked. Twice: no effect and no second line in the audit.
    Raises:      MemoryNotFound.
    """
    with transaction.atomic():
        row = _lock(user_id, item_id)
        _write(row, {"status": MemoryStatus.ACTIVE}, AuditAction.RESTORE, by, now)
        return view_of(row=row)


def _lock(user_id: int, item_id: int) -> MemoryItem:
    own = MemoryItem.objects.filter(pk=item_id, user_id=user_id)
    row = (own.select_for_update() if connection.features.has_select_for_update else own).first()
    if row is None:
        raise MemoryNotFound
    return row


def _check_conversation(user_id: int, values: dict[str, Any]) -> None:
    wanted = values.get("conversation_id")
    if wanted and not AgentChat.objects.filter(chat_id=wanted, user_id=user_id, deleted_at__isnull=True).exists():
        raise ConversationNotFound(fields={"conversation_id": ConversationNotFound.message})


def _write(row: MemoryItem, values: dict[str, Any], action: AuditAction, by: Author, now: datetime) -> None:
    """Write the values that differ, with a line in the audit; nothing when none does."""
    before = _state(row)
    changed = [name for name, value in values.items() if getattr(row, name) != value]
    if not changed:
        return
    for name in changed:
        setattr(row, name, values[name])
    row.updated_at = now
    row.save(update_fields=[*changed, "updated_at"])
    _note(row, action, before, by, now)


def _note(row: MemoryItem, action: AuditAction, before: dict[str, Any] | None, by: Author, now: datetime) -> None:
    MemoryAuditLog.objects.create(
        item=row,
        user_id=row.user_id,
        action=action,
        before=before,
        after=_state(row),
        author_kind=by.kind,
        author_id=by.id,
        reason=checked_reason(reason=by.reason),
        created_at=now,
    )


def _state(row: MemoryItem) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _KEPT}
    return values | {"ttl_at": row.ttl_at.isoformat() if row.ttl_at else None}
