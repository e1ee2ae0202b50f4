"""Waits for a condition by polling it: a test waits exactly as long as the product needs."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
POLL_SECONDS = 0.05


def wait_until(condition: Callable[[], _T], seconds: float, what: str = "the condition") -> _T:
    """Return the condition's first true value; fail with its last value when none comes within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s; last seen: {value!r}")
        time.sleep(POLL_SECONDS)
