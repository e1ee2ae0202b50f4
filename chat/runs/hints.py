"""Short messages between processes: a stop was asked for, a run waits for an executor, a run has said something.

Only hints, through Redis pub/sub on one connection a process: whoever needs to know for certain also looks into the
database, and without Redis that is all there is.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

RUN_STOP = "run-stop"
RUN_QUEUED = "run-queued"

CONNECT_SECONDS = 0.3
ANSWER_SECONDS = 0.5
# A subscription that is silent for so long is asked whether it lives; twice as long, and it is made anew.
SILENCE_SECONDS = 1.0
RETRY_SECONDS = 1.0
# Channels subscribed to with one command, when a connection is made anew.
_CHANNELS_AT_ONCE = 500
AWAY = (RedisError, OSError, TimeoutError)

Callback = Callable[[str], None]
Nothing = Callable[[], None]


class _Listener:
    """What is done with the hints of one channel."""

    __slots__ = ("callback", "on_subscribed")

    def __init__(self, callback: Callback, on_subscribed: Nothing | None) -> None:
        self.callback = callback
        self.on_subscribed = on_subscribed


class Hints:
    """Sends and receives hints on the event loop that uses it. `client` is None without Redis."""

    def __init__(self, *, redis_url: str, prefix: str) -> None:
        self.is_connected = False
        self.client: Redis | None = (
            Redis.from_url(
                redis_url,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
            if redis_url
            else None
        )
        self._prefix = f"{prefix}."
        self._listeners: dict[str, _Listener] = {}
        self._connection: Any = None
        self._receiving: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def publish(self, channel: str, text: str) -> None:
        """Send a hint; returns at once, and nobody is told when it gets lost."""
        if self.client is not None:
            task = asyncio.ensure_future(self._send(self.client, channel, text))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def listen(self, channel: str, callback: Callback, *, on_subscribed: Nothing | None = None) -> None:
        """
        Call back on the event loop with each hint on a channel.

        `on_subscribed` is called when hints begin to arrive, and again each time after some may have been lost.
        """
        if self.client is None:
            return
        self._listeners[channel] = _Listener(callback, on_subscribed)
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._keep_receiving(self.client))
        elif self.is_connected:
            self._command("SUBSCRIBE", [channel])

    def forget(self, channels: Iterable[str]) -> None:
        """Listen to these channels no more."""
        gone = [channel for channel in channels if self._listeners.pop(channel, None) is not None]
        if gone and self.is_connected:
            self._command("UNSUBSCRIBE", gone)

    async def close(self) -> None:
        """Send what is to be sent and give the connections back."""
        if self.client is None:
            return
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        with contextlib.suppress(*AWAY):
            await self.client.aclose()

    async def _send(self, client: Redis, channel: str, text: str) -> None:
        try:
            await client.publish(self._prefix + channel, text)
        except AWAY:
            logger.info("A hint did not reach Redis; who needs it looks into the database")

    async def _keep_receiving(self, client: Redis) -> None:
        is_away = False
        while True:
            pool: Any = client.connection_pool
            self._connection = pool.make_connection()
            try:
                await self._connection.connect()
                await self._subscribe_all()
                if is_away:
                    logger.info("Hints reach this process again")
                is_away, self.is_connected = False, True
                await self._receive()
            except AWAY:
                if not is_away:
                    logger.info("Hints do not reach this process; it looks into the database")
                is_away = True
            finally:
                self.is_connected = False
                with contextlib.suppress(*AWAY):
                    await self._connection.disconnect(nowait=True)
            await asyncio.sleep(RETRY_SECONDS)

    async def _subscribe_all(self) -> None:
        channels = [self._prefix + channel for channel in self._listeners]
        for start in range(0, len(channels), _CHANNELS_AT_ONCE):
            some = channels[start : start + _CHANNELS_AT_ONCE]
            await self._connection.send_command("SUBSCRIBE", *some, check_health=False)

    async def _receive(self) -> None:
        """Hand hints out until the connection is lost."""
        is_asked = False
        while True:
            message = await self._connection.read_response(timeout=SILENCE_SECONDS, disconnect_on_error=False)
            if message is None:
                if is_asked:
                    raise TimeoutError("Redis is silent")
                await self._connection.send_command("PING", check_health=False)
            is_asked = message is None
            if isinstance(message, list) and len(message) == 3:
                self._hand_out(*message)

    def _hand_out(self, kind: bytes, channel: bytes, content: Any) -> None:
        listener = self._listeners.get(channel.decode().removeprefix(self._prefix))
        if listener is None:
            return
        try:
            if kind == b"message":
                listener.callback(content.decode())
            elif kind == b"subscribe" and listener.on_subscribed is not None:
                listener.on_subscribed()
        except Exception:
            # the other listeners of this process are not to blame
            logger.exception("A hint could not be handled", extra={"channel": channel.decode()})

    def _command(self, name: str, channels: list[str]) -> None:
        words = [name, *(self._prefix + channel for channel in channels)]
        task = asyncio.ensure_future(_tell(self._connection, words))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


async def _tell(connection: Any, words: list[str]) -> None:
    """Change what is subscribed to; when the connection is lost, its reader makes another and subscribes to all."""
    with contextlib.suppress(*AWAY):
        if connection.is_connected:
            await connection.send_command(*words, check_health=False)
