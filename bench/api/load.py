"""Clients with a kept connection each, and one round of requests by all of them."""

import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.processes import BenchFailed


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request."""

    method: str
    path: str
    token: str
    body: bytes = b""

    def headers(self) -> dict[str, str]:
        """Return its headers; a write has a key of its own."""
        found = {"Authorization": f"Bearer {self.token}"}
        if self.method != "GET":
            found |= {"Content-Type": "application/json", "X-Idempotency-Key": str(uuid.uuid4())}
        return found


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round gave: how long it took, each request's time, and the bytes of the last answer."""

    seconds: float
    times: list[float]
    last: bytes

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.times) / self.seconds


class Clients:
    """Some connections to one server."""

    def __init__(self, port: int, *, connections: int) -> None:
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=120) for _ in range(connections)]

    def round(self, asks: Sequence[Iterator[Ask]], *, each: int) -> Round:
        """Let every connection send so many of its requests, one after the other, all beginning at once."""
        taken = [[next(own) for _ in range(each)] for own in asks]
        barrier = threading.Barrier(len(taken) + 1)
        times: list[float] = []
        failures: list[BaseException] = []
        last = [b""]

        def work(connection: http.client.HTTPConnection, own: list[Ask]) -> None:
            try:
                reconnect(connection)
                barrier.wait()
                for ask in own:
                    started = time.perf_counter()
                    last[0] = send(connection, ask)
                    times.append(time.perf_counter() - started)
            except (OSError, http.client.HTTPException, BenchFailed) as error:
                failures.append(error)

        pairs = zip(self._connections, taken, strict=False)  # fewer streams than connections leave some idle
        threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in pairs]
        for thread in threads:
            thread.start()
        barrier.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        if failures:
            raise BenchFailed(f"a request failed: {failures[0]}") from failures[0]
        return Round(seconds=seconds, times=times, last=last[0])

    def ask(self, ask: Ask) -> tuple[dict[str, str], Any]:
        """Send one request and return the answer's headers and data."""
        headers: dict[str, str] = {}
        reconnect(self._connections[0])
        body = send(self._connections[0], ask, headers)
        return headers, json.loads(body)["data"]

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()


def reconnect(connection: http.client.HTTPConnection) -> None:
    """Begin anew: the server closes what was silent for a few seconds, as in the other side's turn."""
    connection.close()
    connection.connect()


def send(connection: http.client.HTTPConnection, ask: Ask, headers: dict[str, str] | None = None) -> bytes:
    """Send one request and read its whole answer. Raises: BenchFailed unless it went well."""
    connection.request(ask.method, ask.path, ask.body or None, ask.headers())
    answer = connection.getresponse()
    body = answer.read()
    if headers is not None:
        headers.update({name.lower(): value for name, value in answer.getheaders()})
    if answer.status != 200 or not body.startswith(b'{"status":"10000"'):
        raise BenchFailed(f"{ask.method} {ask.path} answered {answer.status}: {body[:300]!r}")
    return body
