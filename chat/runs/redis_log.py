"""The events of runs in Redis: a stream a run, which outlives the process that wrote it by an hour.

A copy that may vanish at any moment: positions tell whether something is missing, and the database has it within a
second anyway.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from django.conf import settings
from redis.asyncio import Redis

from chat.operations import RecoveredText
from chat.runs.document import Document, Piece
from chat.runs.log import RunLog

# What a follower asks for first: the database is a second behind at most, so a few entries close the gap.
NEWEST_ENTRIES = 64


def stream_of(run_id: str) -> str:
    """Return the key of a run's stream, which is the channel of its entries too."""
    return f"{settings.OUTBOX_TOPIC_PREFIX}.run:{run_id}"


def read_entry(fields: Mapping[bytes, bytes]) -> tuple[int, int, Piece]:
    """Return an entry's attempt, the position behind it, and what was said."""
    return int(fields[b"a"]), int(fields[b"p"]), json.loads(fields[b"d"])


def read_message(text: str) -> tuple[int, int, Piece]:
    """Return the same of an entry as it was published."""
    attempt, position, said = text.split(" ", 2)
    return int(attempt), int(position), json.loads(said)


async def catch_up(log: RunLog, client: Redis) -> bool:
    """Add to a log what its stream knows more of; False when the stream misses something in between."""
    for count in (NEWEST_ENTRIES, None):
        newest: Any = await client.xrevrange(stream_of(log.run_id), count=count)
        is_whole = True
        for _id, fields in reversed(newest):
            attempt, end, piece = read_entry(fields)
            is_whole = log.take(piece, attempt=attempt, end=end)
        if is_whole or len(newest) < NEWEST_ENTRIES:
            return is_whole
    return False


def recover_output(
    run_id: str, attempt: int, *, client: redis.Redis, text: str = "", events: Sequence[Mapping[str, Any]] = ()
) -> RecoveredText | None:
    """
    Return what a dead process had said in a run, when Redis knows more of it than the database's `text` and `events`.

    None when it knows no more, or misses something in between. Asks Redis once, from a thread.
    Raises: redis.RedisError.
    """
    known = Document(text=text, events=events)
    stored = known.units
    entries: Any = client.xrange(stream_of(run_id))
    for _id, fields in entries:
        of_attempt, end, piece = read_entry(fields)
        rest = known.rest_of(piece, end=end) if of_attempt == attempt else ""
        if rest is None:
            break
        known.add(rest)
    if known.units == stored:
        return None
    return RecoveredText(text=known.text, events=tuple(known.events))
