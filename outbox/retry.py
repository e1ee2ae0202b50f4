"""When to try again, and when no more. Pure."""

import random
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto


class Failure(Enum):
    """What a failed try says of the next one."""

    OWN = auto()
    PASSING = auto()  # nothing is wrong with the event: something it needs was away or busy
    PERMANENT = auto()


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a row stands before a failed try is counted; `tries` are those written down, counted or not."""

    attempts: int
    max_attempts: int
    tries: int
    age: timedelta


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of a row: the attempts it has had now, the try's number, and the wait; none for a dead letter."""

    attempts: int
    number: int
    wait_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    n² seconds after the nth failed attempt, n capped, spread by jitter.

    What passes by itself costs no attempt while the row is younger than `patience`; only a row's first try does, so
    that it is seen to be retrying.

    Larger `cap`: a long outage of a dependency costs fewer tries and recovery is noticed later.
    Larger `jitter`: rows that failed together come back further apart.
    Larger `patience`: a longer outage makes no dead letter, and what never passes is told later.
    """

    cap: int = 10  # attempts, so at most 100 seconds
    jitter: float = 0.1  # share of the wait that is added at most
    patience: timedelta = timedelta(days=3)

    def seconds(self, *, attempt: int) -> float:
        """Return the wait in seconds after failed attempt number `attempt`, counted from 1."""
        base = float(min(attempt, self.cap) ** 2)
        return base * (1 + random.random() * self.jitter)  # noqa: S311 - spreads load, guards nothing

    def judge(self, failure: Failure, record: Record) -> Verdict:
        """Return what becomes of a row whose try failed."""
        if failure is Failure.PASSING and record.age < self.patience:
            number = record.tries + 1
            return Verdict(attempts=max(record.attempts, 1), number=number, wait_seconds=self.seconds(attempt=number))
        number = record.attempts + 1
        is_dead = failure is Failure.PERMANENT or number >= record.max_attempts
        return Verdict(attempts=number, number=number, wait_seconds=None if is_dead else self.seconds(attempt=number))


RETRY_POLICY = RetryPolicy()
