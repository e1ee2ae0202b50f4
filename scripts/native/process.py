"""Processes this script started, and the proof that a pid still is one of them.

A pid alone proves nothing: the kernel hands it out again. A process is ours only while its start time and its command
line are those written down when it was started. Nothing here knows what kind of server a process is.
"""

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A live process as the operating system describes it."""

    pid: int
    started: str
    command: str
    is_stopped: bool


@dataclass(frozen=True)
class Record:
    """What is written down about a process when it is started; `marker` is a path only our command line contains."""

    pid: int
    started: str
    marker: str


def inspect(pid: int) -> Process | None:
    """Describe a live process; None when there is none or when it only waits to be reaped."""
    return _from_proc(pid) if Path("/proc/self/stat").exists() else _from_ps(pid)


def _from_proc(pid: int) -> Process | None:
    folder = Path("/proc") / str(pid)
    try:
        # The name in parentheses may itself contain spaces and parentheses: read what follows the last one.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else Process(pid, started, command, is_stopped=state in "Tt")


def _from_ps(pid: int) -> Process | None:
    listing = subprocess.run(
        ["ps", "-o", "stat=,lstart=,command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout.split()
    if len(listing) < 7 or listing[0].startswith("Z"):
        return None
    return Process(pid, " ".join(listing[1:6]), " ".join(listing[6:]), is_stopped=listing[0].startswith("T"))


class PidFile:
    """The record of one server, and the only way to signal it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, pid: int, marker: str) -> None:
        """Write down who was started, in one step so that no reader sees half of it."""
        found = inspect(pid)
        if found is None:
            return
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(Record(pid, found.started, marker))))
        draft.replace(self.path)

    def process(self) -> Process | None:
        """Return the live process of the record; None when it ended or when its pid now belongs to another."""
        record = self._record()
        found = inspect(record.pid) if record else None
        if record is None or found is None:
            return None
        is_ours = found.started == record.started and record.marker in found.command
        return found if is_ours else None

    def send(self, *signals: signal.Signals) -> bool:
        """Send the signals if the process still is ours; say whether it was."""
        found = self.process()
        if found is None:
            return False
        for signum in signals:
            try:
                os.kill(found.pid, signum)
            except ProcessLookupError:
                break
        return True

    def wait_gone(self, seconds: float) -> bool:
        """Wait until the process has ended, and forget it then."""
        deadline = time.monotonic() + seconds
        while self.process() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        self.path.unlink(missing_ok=True)
        return True

    def _record(self) -> Record | None:
        try:
            return Record(**json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def spawn(command: list[str], log: Path, folder: Path) -> int:
    """Start a process that outlives this one and the terminal, its output in `log`; return its pid."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, start_new_session=True
        )
    return child.pid


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log; empty when there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
