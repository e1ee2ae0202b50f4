"""Sums up samples: percentiles of one run, medians over runs. Pure, but for the machine's own load."""

import os
import statistics
from collections.abc import Mapping, Sequence


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that at least `share` of all samples do not exceed."""
    ranked = sorted(samples)
    return ranked[max(0, -(-len(ranked) * round(share * 1000) // 1000) - 1)]


def spread(seconds: Sequence[float], *shares: float) -> dict[str, float]:
    """Return the percentiles in milliseconds by their names: {"p50": 1.2, "p95": 3.4}."""
    return {f"p{round(share * 100)}": round(percentile(seconds, share) * 1000, 1) for share in shares}


def medians(runs: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return each figure's median over the runs that have it; None where none has it."""
    found: dict[str, float | None] = {}
    for name in runs[0]:
        values = [value for run in runs if (value := run.get(name)) is not None]
        found[name] = round(statistics.median(values), 4) if values else None
    return found


def ratio(ours: float | None, floor: float | None) -> float | None:
    """Return ours as a share of the floor."""
    return round(ours / floor, 3) if ours is not None and floor else None


class Load:
    """The machine's load average over a measurement; `before` was read before the bench itself had started anything."""

    def __init__(self, before: float) -> None:
        self.before = before
        self.peak = os.getloadavg()[0]

    def look(self) -> None:
        """Take another sample."""
        self.peak = max(self.peak, os.getloadavg()[0])

    def report(self) -> dict[str, object]:
        """Return the figures; others were at work on this machine when the load was above 1 before."""
        self.look()
        return {
            "before": round(self.before, 2),
            "peak": round(self.peak, 2),
            "after": round(os.getloadavg()[0], 2),
            "is_busy_machine": self.before > 1,
        }
