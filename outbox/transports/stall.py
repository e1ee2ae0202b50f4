"""Tells a group member that gets nothing although messages wait from one that has nothing to get.

kafka.py owns one for each client and feeds it; this file knows no client. The evidence comes from outside the member,
because a member that is stuck cannot be asked.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from outbox.transports.base import PartitionPosition, PublishedRow

Partition = tuple[str, int]
"""Topic and number."""


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """What the broker says of one partition: what it holds, and how far the group has come (negative: nowhere)."""

    low: int
    end: int
    committed: int


Look = Callable[[], dict[Partition, Offsets] | None]
"""Asks the broker for every partition there is; none when it does not answer."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    position: int
    since_seconds: float


class StallWatch:
    """Looks a few times in each window, and calls it a stall when the same message waits for a whole one.

    Its clock is the time spent in polls that brought nothing: it stands still while a handler runs or the process does.
    """

    def __init__(self, *, window_seconds: float, look: Look) -> None:
        self._window_seconds = window_seconds
        self._look = look
        self._silent_seconds = 0.0
        self._next_look = self._pause_seconds = window_seconds / 6
        self._owned: set[Partition] = set()
        self._positions: dict[Partition, int] = {}
        self._waiting: dict[Partition, _Waiting] = {}

    def note_owned(self, partitions: Iterable[Partition]) -> None:
        """Take note of partitions the group gave to this member."""
        self._owned |= set(partitions)

    def note_lost(self, partitions: Iterable[Partition]) -> None:
        """Take note of partitions that are no longer this member's."""
        for partition in partitions:
            self._owned.discard(partition)
            self._positions.pop(partition, None)

    def note_message(self, partition: Partition, offset: int) -> None:
        """Take note of a message that arrived, whether or not it will be acknowledged."""
        self._positions[partition] = offset + 1

    def positions(self, end_of: Callable[[Partition], int]) -> list[PartitionPosition]:
        """Return how far this member is in each of its partitions; where nothing has come yet, nothing waits."""
        found = []
        for topic, number in sorted(self._owned):
            end = max(end_of((topic, number)), 0)
            position = self._positions.get((topic, number), end)
            found.append(PartitionPosition(topic=topic, partition=number, position=position, end=max(end, position)))
        return found

    def is_stalled(self, *, silent_seconds: float) -> bool:
        """Take note of a poll that brought nothing, and tell whether the member should start anew."""
        self._silent_seconds += silent_seconds
        if self._silent_seconds < self._next_look:
            return False
        self._next_look = self._silent_seconds + self._pause_seconds
        self._waiting = self._find_waiting(self._look() or {})
        oldest = min((waiting.since_seconds for waiting in self._waiting.values()), default=self._silent_seconds)
        return self._silent_seconds - oldest >= self._window_seconds

    def _find_waiting(self, seen: dict[Partition, Offsets]) -> dict[Partition, _Waiting]:
        found = {}
        for partition, offsets in seen.items():
            # A member that owns nothing may be outside its group: then it counts what nobody else fetches either.
            if self._owned and partition not in self._owned:
                continue
            position = max(offsets.low, offsets.committed, self._positions.get(partition, 0))
            if position < offsets.end:
                fresh = _Waiting(position=position, since_seconds=self._silent_seconds)
                known = self._waiting.get(partition, fresh)
                found[partition] = known if known.position == position else fresh
        return found


def is_passed_over(row: PublishedRow, *, seen: dict[Partition, Offsets]) -> bool:
    """Tell whether nobody will be given the row's message again; a topic that was made anew knows no such offset."""
    if row.partition is None or row.offset is None:
        return False
    offsets = seen.get((row.topic, row.partition))
    return offsets is None or row.offset < max(offsets.low, offsets.committed) or row.offset >= offsets.end
