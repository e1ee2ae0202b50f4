"""What a run may still cost: its hold on the user's quota grows in steps while the answer streams.

No more is shown than is held. The next step is asked for at 80 % of the hold, so that it is usually there in time; when
it is not, the upstream waits. Nothing here counts tokens; the dialogue says how many were spent.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import InterfaceError, OperationalError

from chat.contracts import StartedRun
from smartflow.accounts.quota import HoldGone, QuotaExceeded, extend_hold
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import Clock
from smartflow.kernel.redact import describe_error

logger = logging.getLogger(__name__)

# As long as the run lives its hold is renewed well before this.
HOLD_SECONDS = 600.0
RENEW_SECONDS = 240.0
# Larger: fewer visits to the database, and more of the quota set aside for nothing.
SHORTEST_STEP_TOKENS = 1000
LONGEST_STEP_TOKENS = 8000
# While the database is away the stream waits behind the hold's end, for at most so long.
PATIENCE_SECONDS = 120.0
_RETRY_SECONDS = 1.0

_T = TypeVar("_T")


class RunHold:
    """The hold of one live run. On the event loop that executes it."""

    def __init__(self, *, run: StartedRun, database: DatabaseThreads, clock: Clock) -> None:
        self.tokens = run.held_tokens
        self._run_id = run.run_id
        self._database = database
        self._clock = clock
        self._extending: asyncio.Task[None] | None = None
        self._refusal: QuotaExceeded | None = None
        self._renewed_at = time.monotonic()

    def note(self, spent: int) -> bool:
        """Take notice of what was spent; ask for more when that comes near the hold. Tell whether it is covered."""
        if 5 * spent > 4 * self.tokens and self._extending is None and self._refusal is None:
            self._begin(max(spent, self.tokens) + _step(spent))
        return spent <= self.tokens

    async def cover(self, spent: int) -> None:
        """
        Wait until so much is held.

        Raises: QuotaExceeded when the user has no more; what is held by then was all that there was.
        """
        while not self.note(spent):
            if self._extending is not None:
                await asyncio.shield(self._extending)
            elif self._refusal is not None:
                raise self._refusal

    def renew_if_due(self) -> None:
        """Let the hold of a long run expire later."""
        is_due = time.monotonic() - self._renewed_at > RENEW_SECONDS
        if is_due and self._extending is None and self._refusal is None:
            self._begin(self.tokens)

    def close(self) -> None:
        """Ask for no more."""
        if self._extending is not None:
            self._extending.cancel()

    def _begin(self, total: int) -> None:
        self._extending = asyncio.get_running_loop().create_task(self._extend(total))
        self._extending.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._extending = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A hold could not be extended", extra={"run_id": self._run_id, "error": describe_error(error)})

    async def _extend(self, total: int) -> None:
        try:
            await self._set(total)
        except QuotaExceeded as refusal:
            self._refusal = refusal
            left = int(refusal.extra.get("left", 0))
            if left > 0:
                await self._take_rest(self.tokens + left)
        except HoldGone:
            # It expired: what was held once is all that may be shown, and settling charges it all the same.
            self._refusal = QuotaExceeded()

    async def _take_rest(self, total: int) -> None:
        try:
            await self._set(total)
        except (QuotaExceeded, HoldGone):
            return

    async def _set(self, total: int) -> None:
        def extend() -> None:
            now: datetime = self._clock()
            extend_hold(hold_id=self._run_id, tokens=total, expires_at=now + timedelta(seconds=HOLD_SECONDS), now=now)

        await self._patiently(extend)
        self.tokens = total
        self._renewed_at = time.monotonic()

    async def _patiently(self, step: Callable[[], _T]) -> _T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await self._database.run(step)
            except (OperationalError, InterfaceError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)


def _step(spent: int) -> int:
    """Return how much more is asked for: the longer the answer, the longer the step."""
    return min(LONGEST_STEP_TOKENS, max(SHORTEST_STEP_TOKENS, math.ceil(spent / 4)))
