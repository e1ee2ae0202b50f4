"""Token buckets: in Redis by one script, so that all processes share them; without Redis in this process.

A request takes one token from each of its buckets, or from none. django-ratelimit and limits count in windows, and one
limit a call: what the first one counted stays spent when the second refuses. Time is Redis's own, or this process's
monotonic one: no clock of ours can refill a bucket by a step.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import redis

# A Redis that hangs costs one request this long, and then nothing for the rest.
_CONNECT_SECONDS = 0.3
_ANSWER_SECONDS = 0.5
_REST_SECONDS = 1.0
# Larger: more memory. Smaller: a flood of clients makes the process forget who was limited.
_MOST_BUCKETS = 50_000

_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local levels, wait = {}, 0
for i, key in ipairs(KEYS) do
  local capacity, period = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local kept = redis.call('HMGET', key, 'level', 'at')
  local level = capacity
  if kept[1] then
    level = math.min(capacity, tonumber(kept[1]) + math.max(0, now - tonumber(kept[2])) * capacity / period)
  end
  levels[i] = level
  if level < 1 then wait = math.max(wait, math.ceil((1 - level) * period / capacity)) end
end
local answer = {wait}
for i, key in ipairs(KEYS) do
  if wait == 0 then
    levels[i] = levels[i] - 1
    redis.call('HSET', key, 'level', tostring(levels[i]), 'at', now)
    redis.call('PEXPIRE', key, ARGV[2 * i])
  end
  answer[i + 1] = math.floor(levels[i] * 1000)
end
return answer
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """`capacity` tokens at most, and as many again in `period_seconds`."""

    key: str
    capacity: int
    period_seconds: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request: how long to wait, 0 when it may pass, and what is left in each bucket."""

    wait_seconds: float
    levels: tuple[float, ...]


class BucketsUnavailable(Exception):
    """Redis does not answer: nobody knows what is left."""


class Buckets(Protocol):
    """A place where buckets are kept."""

    def take(self, buckets: Sequence[Bucket]) -> Taken:
        """Take one token from each bucket, or none from any. Raises: BucketsUnavailable."""


class RedisBuckets:
    """Buckets that every process shares."""

    def __init__(self, url: str, *, prefix: str) -> None:
        self._prefix = prefix
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_ANSWER_SECONDS, health_check_interval=0
        )
        self._script = self._client.register_script(_SCRIPT)
        self._rests_until = 0.0

    def take(self, buckets: Sequence[Bucket]) -> Taken:
        """Take one token from each bucket in one call."""
        if time.monotonic() < self._rests_until:
            raise BucketsUnavailable
        arguments = [number for bucket in buckets for number in (bucket.capacity, round(bucket.period_seconds * 1000))]
        try:
            wait, *levels = self._script([f"{self._prefix}:rate:{bucket.key}" for bucket in buckets], arguments)
        except (redis.RedisError, OSError) as error:
            self._rests_until = time.monotonic() + _REST_SECONDS
            raise BucketsUnavailable from error
        return Taken(wait / 1000, tuple(level / 1000 for level in levels))


class LocalBuckets:
    """Buckets of this process alone: with several web processes each gives as much."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # The one that was used last stands last.
        self._kept: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, buckets: Sequence[Bucket]) -> Taken:
        """Take one token from each bucket."""
        with self._lock:
            now = self._clock()
            levels = [self._level(bucket, now) for bucket in buckets]
            pairs = list(zip(buckets, levels, strict=True))
            wait = max((1 - level) * bucket.period_seconds / bucket.capacity for bucket, level in pairs)
            if wait > 0:
                return Taken(math.ceil(wait * 1000) / 1000, tuple(levels))
            for bucket, level in pairs:
                self._kept[bucket.key] = (level - 1, now)
                self._kept.move_to_end(bucket.key)
            while len(self._kept) > _MOST_BUCKETS:
                self._kept.popitem(last=False)
            return Taken(0, tuple(level - 1 for level in levels))

    def _level(self, bucket: Bucket, now: float) -> float:
        level, at = self._kept.get(bucket.key, (float(bucket.capacity), now))
        return min(float(bucket.capacity), level + (now - at) * bucket.capacity / bucket.period_seconds)
