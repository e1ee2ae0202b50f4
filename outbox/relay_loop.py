"""Who relays when: takes a free slot and works on its share of the keys for a while. Called by a job.

A batch follows the other without a pause; where nothing is ready the relay rests until a hint (wakeup.py). Once a
second somebody looks for rows whose time has come.
"""

import threading
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic

from django.db.models import Max

from outbox.claim import Claim, Share
from outbox.holds import paused_types
from outbox.models import OutboxMessage, Worker
from outbox.relay import Relay, sweep
from outbox.shards import shard_of, shards_of_slot
from outbox.tally import TALLY
from outbox.wakeup import WakeUps
from outbox.workers import GONE_SECONDS, HEARTBEAT_SECONDS, beat, free_slots, leave, relay_name, take_slot
from smartflow.kernel.ids import new_uuid

# Larger: fewer queries, and retries and releases are later.
SWEEP_SECONDS = 1.0
WRITTEN_SECONDS = 5.0


@dataclass(kw_only=True)
class Due:
    """Something to do from time to time."""

    every_seconds: float
    at: float = 0.0

    def is_due(self) -> bool:
        """Tell whether it is time, and begin to wait for the next time."""
        now = monotonic()
        if now < self.at:
            return False
        self.at = now + self.every_seconds
        return True

    def go_on(self) -> None:
        """Make it due at once: it was not done to its end."""
        self.at = 0.0


@dataclass(kw_only=True)
class History:
    """What the relays of one process tell the console, from pass to pass."""

    since: datetime | None = None
    published: int = 0
    # by slot: where the next pass begins, or the shards that a pass does not reach would wait for ever
    starts: dict[int, int] = field(default_factory=dict)
    # slots in hand and their owner's name; what stands here without a relay is a pass that the database cut off
    owners: dict[int, str] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)


class RelayLoop:
    """One relay on one slot, until its time is over, it is asked to stop, or the slot is another's."""

    def __init__(self, *, relay: Relay, slot: int, slots: int, wakeups: WakeUps, stop: threading.Event) -> None:
        self._relay = relay
        self._slot, self._slots = slot, slots
        self._first, self._last = shards_of_slot(slot, slots=slots)
        self._share = Share(first=self._first, last=self._last, start=self._first)
        self._wakeups = wakeups
        self._stop = stop
        # Everybody sweeps for everybody, so that no retry waits for a relay that is gone, and each in its turn.
        self._sweep = Due(every_seconds=SWEEP_SECONDS * slots, at=monotonic() + SWEEP_SECONDS * slot)
        self._pauses = Due(every_seconds=SWEEP_SECONDS)
        self._beat = Due(every_seconds=HEARTBEAT_SECONDS)
        self._written = Due(every_seconds=WRITTEN_SECONDS)
        # up to which row what was written is counted; on the slot's row, because the slot goes from process to process
        self._counted_to = _counted_to() if slot == 0 else None

    def run(self, *, owner: str, history: History, seconds: float) -> None:
        """Relay for so many seconds."""
        until = monotonic() + seconds
        self._share = replace(self._share, start=history.starts.get(self._slot, self._first))
        while not self._stop.is_set() and (left := until - monotonic()) > 0:
            if not self._keep_house(owner, history):
                return
            if self._relay.is_blocked():
                self._stop.wait(min(left, SWEEP_SECONDS, max(self._relay.memory.breaker.seconds_to_probe(), 0.05)))
                continue
            started_at_first = self._share.start == self._first
            claim, result = self._relay.run_batch(self._share)
            history.published += result.published
            self._move_on(claim)
            history.starts[self._slot] = self._share.start
            if claim.rows:
                self._wakeups.note_work()
            elif started_at_first and claim.left_off is None:
                self._wakeups.rest(longest_seconds=min(left, self._seconds_to_house()))

    def _move_on(self, claim: Claim) -> None:
        """Begin behind the last shard looked at when there was more than a batch, or too much; else at the first."""
        start = self._first
        if len(claim.rows) == self._relay.bounds.batch_size:
            start = shard_of(claim.rows[-1].message_key) + 1
        elif claim.left_off is not None:
            start = claim.left_off + 1
        self._share = replace(self._share, start=start if start <= self._last else self._first)

    def _seconds_to_house(self) -> float:
        # pauses need no waking up for: they are read before the next claim
        return max(min(self._sweep.at, self._beat.at) - monotonic(), 0.0)

    def _keep_house(self, owner: str, history: History) -> bool:
        """Do what is due; false when the slot is another's by now."""
        if self._sweep.is_due() and not sweep(self._relay.clock):
            self._sweep.go_on()
        if self._pauses.is_due():
            self._share = replace(self._share, paused=paused_types())
        return not self._beat.is_due() or self._tell(owner, history)

    def _tell(self, owner: str, history: History) -> bool:
        """Say what this relay does, and count what was written; false when the slot is another's by now."""
        before = self._counted_to
        if self._slot == 0 and self._written.is_due():
            self._counted_to = _last_id() or before  # everything may be pruned; the ids go on from where they were
        is_mine = beat(
            name=relay_name(self._slot),
            kind=Worker.Kind.RELAY,
            owner=owner,
            state=self._state(history),
            now=self._relay.clock(),
        )
        if is_mine and before is not None and self._counted_to is not None:
            TALLY.add("written", max(self._counted_to - before, 0))
        return is_mine

    def _state(self, history: History) -> dict[str, object]:
        memory = self._relay.memory
        return {
            "slot": self._slot,
            "slots": self._slots,
            "shards": [self._first, self._last],
            "breaker": "open" if memory.breaker.is_open or memory.topics.is_any_open else "closed",
            "published": history.published,
            "since": history.since.isoformat() if history.since else "",
            "counted_to": self._counted_to,
        }


def _last_id() -> int | None:
    """Say how far the ids have come; rows that were rolled back count too."""
    last: int | None = OutboxMessage.objects.aggregate(last=Max("id"))["last"]
    return last


def _counted_to() -> int | None:
    state = Worker.objects.filter(name=relay_name(0)).values_list("state", flat=True).first()
    number = (state or {}).get("counted_to")
    return number if isinstance(number, int) else None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How many relays there are, how long a pass lasts, where hints come from, and who ends it early."""

    slots: int
    seconds: float
    redis_url: str
    stop: threading.Event


def run_free_slot(*, relay: Relay, history: History, terms: Terms) -> bool:
    """
    Take a free slot, relay for a while and give it back; false when there was none.

    One query when every slot is taken, none when this process has them all.
    """
    if len(history.running) >= terms.slots:
        return False
    _leave_what_was_cut_off(relay, history)
    owner = f"{relay.name} {new_uuid()[:8]}"
    slot = _take_free_slot(relay, terms.slots, owner)
    if slot is None:
        return False
    history.running.add(slot)
    history.owners[slot] = owner
    history.since = history.since or relay.clock()
    wakeups = WakeUps(shards=shards_of_slot(slot, slots=terms.slots), stop=terms.stop, url=terms.redis_url)
    try:
        loop = RelayLoop(relay=relay, slot=slot, slots=terms.slots, wakeups=wakeups, stop=terms.stop)
        loop.run(owner=owner, history=history, seconds=terms.seconds)
    finally:
        history.running.discard(slot)
        wakeups.close()
    _leave_what_was_cut_off(relay, history)
    return True


def _leave_what_was_cut_off(relay: Relay, history: History) -> None:
    """Give back this process's slots that nobody works on; otherwise they would wait until the lease is over."""
    for slot in set(history.owners) - history.running:
        # taken out first: another thread may be here, too, or have the slot anew by the time it is left
        owner = history.owners.pop(slot, None)
        if owner is None:
            continue
        try:
            leave(name=relay_name(slot), owner=owner, now=relay.clock())
        except Exception:
            history.owners.setdefault(slot, owner)
            raise


def _take_free_slot(relay: Relay, slots: int, owner: str) -> int | None:
    now = relay.clock()
    for slot in free_slots(slots=slots, now=now):
        if take_slot(slot=slot, owner=owner, now=now, lease_seconds=GONE_SECONDS):
            return slot
    return None
