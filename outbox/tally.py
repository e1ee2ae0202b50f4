"""What this process has counted since its last heartbeat: the names are columns of MinuteCount.

A count that dies with its process is lost; the rows are the truth, these are for the eye.
"""

import threading
from collections import Counter
from collections.abc import Mapping

# In the order in which they are shown.
NAMES = ("written", "published", "consumed", "retried", "dead", "duplicates", "fenced", "conflicts", "violations")


class Tally:
    """Thread-safe counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()

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
            self._taken += counts
        return dict(counts)

    def restore(self, counts: Mapping[str, int]) -> None:
        """Put back what was taken and could not be written."""
        with self._lock:
            self._counts += Counter(counts)
            self._taken -= Counter(counts)

    def totals(self) -> dict[str, int]:
        """Return what was counted since this process began, by every name."""
        with self._lock:
            return {name: self._taken[name] + self._counts[name] for name in NAMES}


TALLY = Tally()
