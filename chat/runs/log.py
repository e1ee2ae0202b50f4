"""The events of one run inside this process: written by its executor, read by any number of tails.

Every event is encoded once and shared. Single-threaded: everything here happens on the event loop.
"""

import asyncio

from smartflow.kernel.sse import encode_event

DONE = "[DONE]"


class RunLog:
    """A list that only grows, and a way to wait for its growth. Event ids count from 1."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.is_closed = False
        self._frames: list[bytes] = []
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def append(self, data: str) -> None:
        """Add an event and wake every tail. Raises: RuntimeError after close."""
        if self.is_closed:
            raise RuntimeError("the run's log is closed")
        self._frames.append(encode_event(data, event_id=str(len(self._frames) + 1)))
        self._wake()

    def close(self) -> None:
        """Add the end mark, the one and only, and let tails end. Twice: no effect."""
        if self.is_closed:
            return
        self.append(DONE)
        self.is_closed = True
        self._wake()

    def frames_after(self, event_id: int) -> list[bytes]:
        """Return the encoded events behind `event_id`, oldest first."""
        return self._frames[event_id:]

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done at the next event; shared, so never cancel it."""
        return self._changed

    def _wake(self) -> None:
        woken, self._changed = self._changed, asyncio.get_running_loop().create_future()
        woken.set_result(None)
