"""Who works here: the heartbeats of relays and consumers, and the slots that relays take.

A worker that was not heard of for its lease is gone. A relay's row is a slot, held by one owner at a time; that keeps
relays from doing the same work twice, while the order per key rests on the claim alone.
"""

import os
import socket
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F

from outbox.database_errors import repeat_on_conflict
from outbox.models import MinuteCount, Worker
from outbox.tally import TALLY

# Larger: fewer statements, and the console is older. A worker is gone after GONE_SECONDS of silence.
HEARTBEAT_SECONDS = 2.0
GONE_SECONDS = 10.0


def own_name() -> str:
    """Return this process's name for others, host:pid, at most 40 characters."""
    pid = f":{os.getpid()}"
    return socket.gethostname()[: 40 - len(pid)] + pid


def worker_name(kind: str) -> str:
    """Return the name of this process's row, at most 64 characters; a relay's row is its slot, see relay_name."""
    return f"{kind} {own_name()}"


def relay_name(slot: int) -> str:
    """Return the name of a slot's row."""
    return f"relay-{slot}"


def free_slots(*, slots: int, now: datetime) -> list[int]:
    """Return the slots that nobody holds, in one query."""
    names = {relay_name(slot): slot for slot in range(slots)}
    held = Worker.objects.filter(name__in=names, lease_until__gt=now).values_list("name", flat=True)
    return sorted(set(names.values()) - {names[name] for name in held})


def take_slot(*, slot: int, owner: str, now: datetime, lease_seconds: float) -> bool:
    """
    Take a relay's slot and tell whether it is ours.

    Transaction: its own; of several that ask at once one gets it.
    Twice:       false while the lease runs, also for its owner; beat() prolongs it.
    """
    name, lease_until = relay_name(slot), now + timedelta(seconds=lease_seconds)
    moments = {"started_at": now, "heartbeat_at": now, "lease_until": lease_until}
    taken = repeat_on_conflict(
        lambda: Worker.objects.filter(name=name, lease_until__lte=now).update(owner=owner, **moments)
    )
    return bool(taken) or _is_inserted(Worker(name=name, kind=Worker.Kind.RELAY, owner=owner, **moments))


def beat(*, name: str, kind: str, owner: str, state: Mapping[str, Any], now: datetime) -> bool:
    """
    Say that this worker lives and what it does, and add what this process has counted to the minute.

    Transaction: one UPDATE, and one for the counts when there are any; the first of a minute is an INSERT.
    Shape:       false when the row is another's by now: a relay that was away too long has lost its slot.
    """
    moments = {"heartbeat_at": now, "lease_until": now + timedelta(seconds=GONE_SECONDS)}
    mine = Worker.objects.filter(name=name, owner=owner)
    is_mine = bool(repeat_on_conflict(lambda: mine.update(state=dict(state), **moments)))
    if not is_mine and kind != Worker.Kind.RELAY:
        is_mine = _is_inserted(Worker(name=name, kind=kind, owner=owner, started_at=now, state=dict(state), **moments))
    flush_counts(now=now)
    return is_mine


def flush_counts(*, now: datetime) -> None:
    """Add what this process has counted to the minute; it is kept for the next time when the database is away."""
    counts = TALLY.take()
    if not counts:
        return
    minute = now.replace(second=0, microsecond=0)
    try:
        if not _add(minute, counts) and not _is_inserted(MinuteCount(minute=minute, **counts)):
            _add(minute, counts)
    except Exception:
        TALLY.restore(counts)
        raise


def _add(minute: datetime, counts: Mapping[str, int]) -> int:
    more = {name: F(name) + amount for name, amount in counts.items()}
    return repeat_on_conflict(lambda: MinuteCount.objects.filter(minute=minute).update(**more))


def leave(*, name: str, owner: str, now: datetime) -> None:
    """Say goodbye: a relay's slot is free at once, a consumer's row goes."""
    mine = Worker.objects.filter(name=name, owner=owner)
    repeat_on_conflict(lambda: mine.filter(kind=Worker.Kind.RELAY).update(owner="", lease_until=now))
    repeat_on_conflict(lambda: mine.exclude(kind=Worker.Kind.RELAY).delete())


def _is_inserted(row: Worker | MinuteCount) -> bool:
    """Insert a row, unless somebody else was faster."""
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        return False
    return True
