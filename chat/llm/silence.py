"""Ends a wait that lasts too long, at next to no cost while something comes. Pure of HTTP; used by answer_body.py.

asyncio.timeout sets a timer and takes it back for every wait, which at thousands of tokens a second is a good part of
reading them. Here one timer stays, and looks when it fires whether its deadline has moved on.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class SilenceWatch:
    """Watches one reader's waits, one at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0
        self._deadline = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._has_fired = False

    async def wait(self, coming: Awaitable[T], *, deadline: float) -> T:
        """
        Return what comes.

        Units:  deadline by the clock of the loop.
        Raises: TimeoutError when the deadline is first; what was awaited is cancelled then.
        """
        task = asyncio.current_task()
        assert task is not None
        self._deadline = deadline
        if self._timer is None or deadline < self._looks_at:
            self._look_at(deadline)
        earlier_cancels = task.cancelling()
        self._waiting = task
        try:
            return await coming
        except asyncio.CancelledError as error:
            # Somebody else may have cancelled the reader, too; that has to go on.
            if self._has_fired and task.uncancel() <= earlier_cancels:
                raise TimeoutError from error
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, moment: float) -> None:
        self.close()
        self._looks_at = moment
        self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait sets the timer anew
        if self._loop.time() < self._deadline:
            self._look_at(self._deadline)
            return
        self._has_fired = True
        self._waiting.cancel()
