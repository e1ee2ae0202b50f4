"""Starts the scripted server for a test, as a process of its own, and ends it."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ScriptedModel:
    """A running server, asked over HTTP."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return f"{self.url}/v1"

    def seen(self) -> dict[str, Any]:
        """Return `requests`, `finished`, `abandoned`, `connections`, and the last `bodies` and `headers`."""
        return self._ask("/_seen")

    def open_count(self) -> int:
        """Return how many streams are open now."""
        return int(self._ask("/_open")["count"])

    def wait_until_open_count(self, count: int, *, within_seconds: float = 5.0) -> float:
        """Wait until so many streams are open; return how long it took, raise when it never happens."""
        started = time.monotonic()
        while (found := self.open_count()) != count:
            if time.monotonic() - started > within_seconds:
                raise AssertionError(f"{found} streams are open after {within_seconds} s, expected {count}")
            time.sleep(0.01)
        return time.monotonic() - started

    def reset(self) -> None:
        """Forget what was seen, and how often which request was refused."""
        self._ask("/_reset", method="POST")

    def stop(self) -> None:
        """End the server at once: it is down from here on, and its connections are broken."""
        self.process.kill()
        self.process.wait(timeout=10)

    def _ask(self, path: str, *, method: str = "GET") -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


@contextmanager
def running_scripted_model(*, port: int = 0) -> Iterator[ScriptedModel]:
    """Start the server on a free port (or this one), wait until it listens, and end it afterwards."""
    command = [sys.executable, "-m", "tests.scripted_model", "--port", str(port), "--until-stdin-closes"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise RuntimeError(f"the scripted model did not start: {line!r}")
            yield ScriptedModel(int(line.split()[-1]), process)
        finally:
            process.kill()
