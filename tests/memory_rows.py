"""Items of the long-term memory for tests, through the product's own operations."""

from datetime import UTC, datetime, timedelta

from chat import operations
from chat.memory_contracts import Author, AuthorKind, MemoryStatus, NewMemory, SwitchesChange
from chat.memory_models import MemoryItem

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def by_user(user, reason=""):
    return Author(kind=AuthorKind.USER, id=user.pk, reason=reason)


def add_memory(user, content="Never before ten", *, now=NOW, by=None, **values):
    """Return the id of a new item."""
    item = NewMemory(**{"memory_type": "preference", "title": "Mornings", "content": content} | values)
    return operations.create_memory_item(user_id=user.pk, item=item, by=by or by_user(user), now=now).id


def add_deleted_memory(user, **values):
    """Return the id of an item that was deleted."""
    item_id = add_memory(user, **values)
    operations.delete_memory_item(user_id=user.pk, item_id=item_id, by=by_user(user), now=NOW)
    return item_id


def add_archived_memory(user, **values):
    """Return the id of an archived item. Written directly: archiving is the assistant's."""
    item_id = add_memory(user, **values)
    MemoryItem.objects.filter(pk=item_id).update(status=MemoryStatus.ARCHIVED)
    return item_id


def turn_switch(user, *, memory_enabled=False):
    """Forbid the assistant to remember anything of the user, or let it."""
    change = SwitchesChange(memory_enabled=memory_enabled)
    operations.change_memory_switches(user_id=user.pk, change=change, by=by_user(user), now=NOW)
