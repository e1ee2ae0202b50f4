"""One process of the product: started in a group of its own, its output in a file, ended whatever happens."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.stack.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
STOP_SECONDS = 20
LOG_TAIL_CHARACTERS = 6000


class Process:
    """A command that can be started again after it was stopped or killed."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.port = 0
        self._arguments = [PYTHON, *arguments]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, unless it runs. A child that outlived its killed parent is ended first."""
        if self.is_running:
            return
        self._end_group(signal.SIGKILL)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._arguments,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def ask_to_end(self) -> None:
        """Send SIGTERM and return at once."""
        assert self._process is not None
        self._process.terminate()

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        if self._process is None:
            return
        self.ask_to_end()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not stop within {STOP_SECONDS} s of SIGTERM") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and its children with SIGKILL."""
        self._end_group(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def wait_gone(self, seconds: float) -> None:
        """Wait until it has ended by itself, then end the children it left."""
        wait_until(lambda: not self.is_running, seconds, f"the end of {self.name}")
        self.kill()

    def log_since_start(self) -> str:
        """Return what it wrote since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def log_tail(self) -> str:
        """Return the end of all it ever wrote, without the ticks of the timetable."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").splitlines(keepends=True)
        return "".join(line for line in lines if " received data={" not in line)[-LOG_TAIL_CHARACTERS:]

    def _end_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
