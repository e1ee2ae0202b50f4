"""Notices events that were published out of order: a lower id that shows up behind a higher one of its key.

That is what happens when a writer appends without holding the aggregate's row: ids are given before the commit. It is
seen from one process, so a violation is real, and none proves nothing. Pure.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable

# Keys remembered. Larger: more memory, and an older violation is still noticed.
REMEMBERED_KEYS = 10_000


class CommitOrder:
    """The last id of each key that was published for the first time here; shared by the threads of a process."""

    def __init__(self, *, limit: int = REMEMBERED_KEYS) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._last: OrderedDict[str, int] = OrderedDict()

    def note(self, published: Iterable[tuple[str, int]]) -> list[tuple[str, int, int]]:
        """Take note of (key, id) in the order of publishing; return violations: (key, id, the higher id before it)."""
        violations = []
        with self._lock:
            for key, pk in published:
                last = self._last.get(key, 0)
                if pk < last:
                    violations.append((key, pk, last))
                    continue
                self._last[key] = pk
                self._last.move_to_end(key)
            while len(self._last) > self._limit:
                self._last.popitem(last=False)
        return violations
