"""The user's switches over the long-term memory; each turn leaves its line in the audit."""

from dataclasses import asdict, replace
from datetime import datetime

from django.db import connection, transaction

from chat.memory.items import checked_reason
from chat.memory_contracts import AuditAction, Author, MemorySwitches, SwitchesChange
from chat.memory_models import MemoryAuditLog, MemorySettings
from chat.memory_queries import get_memory_switches
from chat.operations.memory_items import MemoryChangeEmpty


def change_memory_switches(*, user_id: int, change: SwitchesChange, by: Author, now: datetime) -> MemorySwitches:
    """
    Turn the switches that were given.

    Transaction: one, with the audit and the switches locked. Twice: no effect and no second line in the audit.
    Raises:      MemoryChangeEmpty.
    """
    values = change.values()
    if not values:
        raise MemoryChangeEmpty
    with transaction.atomic():
        _lock(user_id, now)
        before = get_memory_switches(user_id=user_id)
        after = replace(before, **values)
        if after != before:
            MemorySettings.objects.filter(pk=user_id).update(**values)
            MemoryAuditLog.objects.create(
                user_id=user_id,
                action=AuditAction.SETTINGS,
                before=asdict(before),
                after=asdict(after),
                author_kind=by.kind,
                author_id=by.id,
                reason=checked_reason(reason=by.reason),
                created_at=now,
            )
        return after


def _lock(user_id: int, now: datetime) -> None:
    """Lock the user's row, also when it is not there yet: in one statement, or two first turns would deadlock."""
    row = MemorySettings(user_id=user_id, **asdict(MemorySwitches()), updated_at=now)
    MemorySettings.objects.bulk_create(
        [row],
        update_conflicts=True,
        update_fields=["updated_at"],
        unique_fields=["user"] if connection.features.supports_update_conflicts_with_target else None,
    )
