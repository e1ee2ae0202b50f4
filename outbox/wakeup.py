"""Wakes relays right after a commit. Only a hint: a relay looks by itself too, so losing one costs time and no event.

Writers send it through Redis, from one background thread a process, so that a request never waits for it; hints that
come while one is being sent are merged. Without Redis, or while it is away, relays look more often instead.
"""

import logging
import os
import threading
from functools import partial
from time import monotonic
from typing import Any

import redis
from django.conf import settings
from django.db import transaction

from outbox.notice import Notice

logger = logging.getLogger(__name__)

# What an idle relay waits at most where hints reach it, and between the shortest and the longest where none do.
# Larger longest wait without hints: fewer queries while nothing happens, and the first event after a rest is later.
LONGEST_REST_SECONDS = 1.0
SHORTEST_POLL_SECONDS = 0.005
LONGEST_POLL_SECONDS = 0.25
_CONNECT_SECONDS = 0.3
_ANSWER_SECONDS = 0.5
_RETRY_SECONDS = 1.0
# A process that is asked to stop notices within this.
_SLICE_SECONDS = 0.1
_ALL = "*"


def wake_after_commit(*shards: int) -> None:
    """Wake the relays of these shards, or all, once the transaction has committed; never when it rolls back."""
    transaction.on_commit(partial(_wake, shards), robust=True)


def _wake(shards: tuple[int, ...]) -> None:
    global _sender
    if not settings.REDIS_URL:
        return
    with _lock:
        if _sender is None or not _sender.is_mine:
            _sender = Sender()
    _sender.wake(shards)


def _channel() -> str:
    return f"{settings.OUTBOX_TOPIC_PREFIX}.outbox.wake"


class Sender:
    """A daemon thread that sends at most one hint at a time, in the process that made it."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._shards_lock = threading.Lock()
        self._shards: set[str] = set()
        self._pid = os.getpid()
        self._notice = Notice(
            logger=logger, away="Relays cannot be woken; they look by themselves", back="Relays can be woken again"
        )
        self._client = redis.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_ANSWER_SECONDS
        )
        self._thread = threading.Thread(target=self._run, name="outbox-wakeup", daemon=True)
        self._thread.start()

    @property
    def is_mine(self) -> bool:
        """Tell whether this process started the thread; a forked child has to start its own."""
        return self._pid == os.getpid()

    def wake(self, shards: tuple[int, ...]) -> None:
        """Ask for a hint; returns at once."""
        with self._shards_lock:
            self._shards.update([str(shard) for shard in shards] or [_ALL])
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            with self._shards_lock:
                shards, self._shards = self._shards, set()
            try:
                self._client.publish(_channel(), ",".join(shards))
            except redis.RedisError:
                self._notice.tell(is_away=True)
            else:
                self._notice.tell(is_away=False)


_sender: Sender | None = None
_lock = threading.Lock()
_listening = Notice(
    logger=logger, away="Hints do not reach the relay; it looks more often", back="Hints reach the relay again"
)


class WakeUps:
    """How a relay rests while there is nothing to do: until a hint for one of its shards, or for a moment."""

    def __init__(self, *, shards: tuple[int, int], stop: threading.Event, url: str) -> None:
        self._mine = {_ALL, *(str(shard) for shard in range(shards[0], shards[1] + 1))}
        self._stop = stop
        self._url = url
        self._hints: Any = None
        self._try_again_at = 0.0
        self._poll_seconds = SHORTEST_POLL_SECONDS

    def note_work(self) -> None:
        """Take note that there was something to do: more may follow soon."""
        self._poll_seconds = SHORTEST_POLL_SECONDS

    def rest(self, *, longest_seconds: float) -> None:
        """Wait until something may have to be done, at most so long."""
        listened_before = self._hints is not None
        if self._listens():
            if listened_before:  # else a hint may have gone by since the relay looked: it looks once more
                self._wait_for_hint(min(LONGEST_REST_SECONDS, longest_seconds))
            return
        self._stop.wait(min(self._poll_seconds, longest_seconds))
        self._poll_seconds = min(self._poll_seconds * 2, LONGEST_POLL_SECONDS)

    def _listens(self) -> bool:
        if self._hints is not None or not self._url or monotonic() < self._try_again_at:
            return self._hints is not None
        client: Any = redis.Redis.from_url(
            self._url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_ANSWER_SECONDS
        )
        hints = client.pubsub(ignore_subscribe_messages=True)
        try:
            hints.subscribe(_channel())
            hints.get_message(timeout=_ANSWER_SECONDS)  # the answer: from now on no hint is missed
        except redis.RedisError:
            self._lose(hints)
            return False
        self._hints = hints
        _listening.tell(is_away=False)
        return True

    def _wait_for_hint(self, seconds: float) -> None:
        until = monotonic() + seconds
        is_woken = False
        try:
            while not is_woken and not self._stop.is_set() and (left := until - monotonic()) > 0:
                is_woken = self._is_for_me(self._hints.get_message(timeout=min(left, _SLICE_SECONDS)))
            # what is left was sent before the next claim looks
            while is_woken and self._hints.get_message(timeout=0) is not None:
                pass
        except redis.RedisError:
            self._lose(self._hints)

    def _is_for_me(self, message: dict[str, Any] | None) -> bool:
        return message is not None and not self._mine.isdisjoint(message["data"].decode().split(","))

    def _lose(self, hints: Any) -> None:
        _listening.tell(is_away=True)
        self._hints = None
        self._try_again_at = monotonic() + _RETRY_SECONDS
        hints.close()

    def close(self) -> None:
        """Give the connection back."""
        if self._hints is not None:
            self._hints.close()
            self._hints = None
