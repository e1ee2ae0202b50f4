"""Puts what this process's runs say into Redis before their readers see it, so that it outlives the process.

One call is under way at a time and takes along all that came meanwhile. While Redis is away or slow readers do not
wait for it; when it is back, each run's stream is written anew from its beginning, so that it has no hole.
"""

import asyncio
import contextlib
import json
import logging
from time import monotonic
from typing import Any

from redis.asyncio import Redis

from chat.runs.document import Piece
from chat.runs.hints import AWAY
from chat.runs.log import RunLog
from chat.runs.redis_log import stream_of

logger = logging.getLogger(__name__)

STREAM_SECONDS = 3600
STREAM_ENTRIES = 10_000
# How long readers do without Redis before it is asked again; doubled while it fails again soon after.
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# Larger: fewer calls, each for more runs; a piece may wait for so long.
SPACING_SECONDS = 0.005
_MOST_CHARACTERS_AT_ONCE = 512 * 1024
_ENTRY_CHARACTERS = 16 * 1024

# Four arguments a key: "1" when the stream is to begin anew, attempt, position behind the piece, the piece.
_APPEND = f"""
for i, key in ipairs(KEYS) do
  local anew, attempt, position, piece = ARGV[4*i-3], ARGV[4*i-2], ARGV[4*i-1], ARGV[4*i]
  if anew == '1' then redis.call('DEL', key) end
  redis.call('XADD', key, 'MAXLEN', '~', {STREAM_ENTRIES}, '*', 'a', attempt, 'p', position, 'd', piece)
  redis.call('EXPIRE', key, {STREAM_SECONDS})
  redis.call('PUBLISH', key, attempt .. ' ' .. position .. ' ' .. piece)
end
"""


class RedisWriter:
    """The gate of the logs that are owned here."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._append: Any = client.register_script(_APPEND)
        self._waiting: dict[str, RunLog] = {}
        # How much of each run is in its stream; a run that is not in here has its stream written anew.
        self._written: dict[str, int] = {}
        self._pause_seconds = SHORTEST_PAUSE_SECONDS
        self._flight: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None

    def offer(self, log: RunLog) -> None:
        """Show what a log has been told as soon as Redis has it; at once while Redis is away."""
        if log.end_of_run is not None:
            self._written.pop(log.run_id, None)
            self._waiting.pop(log.run_id, None)
        elif self._probing is not None:
            log.show(log.units)
        else:
            self._waiting[log.run_id] = log
            if self._flight is None:
                self._flight = asyncio.ensure_future(self._fly())

    def drop(self, log: RunLog) -> None:
        """Write no more of a log."""
        self._written.pop(log.run_id, None)
        self._waiting.pop(log.run_id, None)

    async def close(self) -> None:
        """End what is under way; what waits is shown."""
        tasks = [task for task in (self._flight, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._show_all({})

    async def _fly(self) -> None:
        try:
            while self._waiting:
                began = monotonic()
                keys, arguments, ends = self._load()
                try:
                    if keys:
                        await self._append(keys=keys, args=arguments)
                except AWAY:
                    self._lose(ends)
                    return
                self._pause_seconds = SHORTEST_PAUSE_SECONDS
                for log, end in ends.items():
                    if log.run_id in self._written:
                        self._written[log.run_id] = max(end, self._written[log.run_id])
                    log.show(end)
                await asyncio.sleep(max(0.0, SPACING_SECONDS - (monotonic() - began)))
        finally:
            self._flight = None

    def _load(self) -> tuple[list[str], list[str | int], dict[RunLog, int]]:
        """Take as much of what waits as goes at once."""
        keys: list[str] = []
        arguments: list[str | int] = []
        ends: dict[RunLog, int] = {}
        size = 0
        while self._waiting and size < _MOST_CHARACTERS_AT_ONCE:
            run_id = next(iter(self._waiting))
            log = self._waiting.pop(run_id)
            anew = "1" if run_id not in self._written else ""
            written = self._written.setdefault(run_id, 0)
            for piece, end in _merged(log.pieces_after(written)):
                keys.append(stream_of(run_id))
                said = json.dumps(piece)
                arguments += [anew, log.attempt, end, said]
                size, anew = size + len(said), ""
            ends[log] = log.units
        return keys, arguments, ends

    def _lose(self, ends: dict[RunLog, int]) -> None:
        logger.warning("Redis is away; what runs say goes to their readers without it")
        self._show_all(ends)
        self._probing = asyncio.ensure_future(self._probe())

    def _show_all(self, ends: dict[RunLog, int]) -> None:
        self._written.clear()
        for log in (*ends, *self._waiting.values()):
            log.show(log.units)
        self._waiting.clear()

    async def _probe(self) -> None:
        is_back = False
        while not is_back:
            await asyncio.sleep(self._pause_seconds)
            self._pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * self._pause_seconds)
            with contextlib.suppress(*AWAY):
                await self._client.ping()
                is_back = True
        logger.info("Redis is back; what runs say goes there first again")
        self._probing = None


def _merged(pieces: list[tuple[Piece, int]]) -> list[tuple[Piece, int]]:
    """Join neighbouring texts, so that an entry costs no more than it must."""
    merged: list[tuple[Piece, int]] = []
    for piece, end in pieces:
        last = merged[-1][0] if merged else None
        if isinstance(piece, str) and isinstance(last, str) and len(last) < _ENTRY_CHARACTERS:
            merged[-1] = (last + piece, end)
        else:
            merged.append((piece, end))
    return merged
