"""When to try again. Pure."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    n² seconds after the nth failed attempt, n capped, spread by jitter.

    Larger `cap`: a long outage of a dependency costs fewer attempts and recovery is noticed later.
    Larger `jitter`: rows that failed together come back further apart.
    """

    cap: int = 10  # attempts, so at most 100 seconds
    jitter: float = 0.1  # share of the wait that is added at most

    def seconds(self, *, attempt: int) -> float:
        """Return the wait in seconds after failed attempt number `attempt`, counted from 1."""
        base = float(min(attempt, self.cap) ** 2)
        return base * (1 + random.random() * self.jitter)  # noqa: S311 - spreads load, guards nothing


RETRY_POLICY = RetryPolicy()
