"""What this process has counted since its last heartbeat: the names are columns of MinuteCount.

A count that dies with its process is lost; the rows are the truth, these are for the eye.
"""

import threading
from collections import Counter

NAMES = frozenset(
    {"written", "published", "consumed", "retried", "dead", "fenced", "duplicates", "violations", "conflicts"}
)


class Tally:
    """Thread-safe counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """Count. Raises: KeyError for a name that no column has."""
        if name not in NAMES:
            raise KeyError(name)
        if amount:
            with self._lock:
                self._counts[name] += amount

    def take(self) -> dict[str, int]:
        """Return what was counted and begin at zero."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(counts)


TALLY = Tally()
