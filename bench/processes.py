"""One process of the product or of a floor: started in a group of its own, ended whatever happens."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
START_SECONDS = 60
STOP_SECONDS = 15


class BenchFailed(Exception):
    """A process did not do its part; the message says which, and shows what it wrote last."""


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str, every: float = 0.05) -> None:
    """Wait for a condition. Raises: BenchFailed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchFailed(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(every)


def die_with_parent() -> None:
    """Ask the kernel to end this child when the bench is killed: nobody else would. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Process:
    """A Python command with its output in a file."""

    def __init__(
        self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path, *, python: str = PYTHON
    ) -> None:
        self.name = name
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [python, *arguments],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def said(self) -> str:
        """Return what it has written since it was started."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def check_alive(self) -> None:
        """Raise BenchFailed when it has ended."""
        if self._process.poll() is not None:
            raise BenchFailed(f"{self.name} ended with code {self._process.returncode}:\n{self.said()[-3000:]}")

    def wait_said(self, line: str) -> None:
        """Wait until it has written a line that contains this."""

        def has_said() -> bool:
            if line in self.said():
                return True
            self.check_alive()
            return False

        wait_until(has_said, seconds=START_SECONDS, what=f"a ready {self.name}")

    def wait_done(self, *, seconds: float) -> str:
        """Wait until it has ended well and return what it wrote. Raises: BenchFailed."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{self.name} still ran after {seconds:.0f} s:\n{self.said()[-3000:]}") from None
        if code:
            raise BenchFailed(f"{self.name} ended with code {code}:\n{self.said()[-3000:]}")
        return self.said()

    def end(self) -> None:
        """Ask it to end, and do not wait."""
        self._process.terminate()

    def stop(self) -> None:
        """Ask it to end; end it and its children when it does not."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
