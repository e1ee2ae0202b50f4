"""Many calls at once, over several clients of few connections each.

Used by openai_client.py. A client looks at each of its connections when a call begins and when one ends; were there one
client for all, every open call would make all the others dearer.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import openai

# Fewer: more clients, and a connection is used again less often. More: each call looks at more connections.
CALLS_PER_CLIENT = 32


class Connections:
    """The clients of one event loop; a further one is made when those that are there have enough to do."""

    def __init__(self, *, api_key: str, base_url: str, connect_timeout_seconds: float, max_connections: int) -> None:
        self._api_key = api_key
        self._base_url = base_url
        # Silence is noticed by whoever reads; a timer below would be one more for every chunk.
        self._timeout = httpx2.Timeout(None, connect=connect_timeout_seconds, pool=connect_timeout_seconds)
        self._calls_per_client = min(CALLS_PER_CLIENT, max_connections)
        self._max_clients = math.ceil(max_connections / self._calls_per_client)
        self._tls = httpx2.create_ssl_context()  # reads all certificates: once, not for each client
        self._calls: dict[openai.AsyncOpenAI, int] = {}

    @contextmanager
    def client(self) -> Iterator[openai.AsyncOpenAI]:
        """Give a client for one call, until its answer is read."""
        client = self._choose()
        self._calls[client] += 1
        try:
            yield client
        finally:
            self._calls[client] -= 1

    async def aclose(self) -> None:
        """Close all connections; calls under way end as cut."""
        for client in list(self._calls):
            await client.close()

    def _choose(self) -> openai.AsyncOpenAI:
        # The first that has room, so that a quiet process keeps to one and uses its connections again.
        free = next((client for client, count in self._calls.items() if count < self._calls_per_client), None)
        if free is not None:
            return free
        if len(self._calls) >= self._max_clients:
            return min(self._calls, key=lambda client: self._calls[client])
        client = self._new_client()
        self._calls[client] = 0
        return client

    def _new_client(self) -> openai.AsyncOpenAI:
        count = self._calls_per_client
        limits = httpx2.Limits(max_connections=count, max_keepalive_connections=count)
        return openai.AsyncOpenAI(
            api_key=self._api_key,
            base_url=self._base_url or None,
            timeout=self._timeout,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpx2Client(timeout=self._timeout, limits=limits, verify=self._tls),
        )
