"""Short messages between processes: a stop was asked for, a run waits for an executor, a run has said something.

Only hints, through Redis pub/sub on one connection a process: whoever needs to know for certain also looks into the
database, and without Redis that is all there is.
"""

from collections.abc import Callable

RUN_STOP = "run-stop"
RUN_QUEUED = "run-queued"

Callback = Callable[[str], None]


class Hints:
    """Sends and receives hints on the event loop that uses it."""

    def __init__(self, *, redis_url: str, prefix: str) -> None:
        self._redis_url = redis_url
        self._prefix = prefix
        self._callbacks: dict[str, Callback] = {}

    def publish(self, channel: str, text: str) -> None:
        """Send a hint; returns at once, and nobody is told when it gets lost."""

    def listen(self, channel: str, callback: Callback) -> None:
        """Call back on the event loop with each hint on a channel, from about now on."""
        self._callbacks[channel] = callback

    async def close(self) -> None:
        """Give the connections back."""
