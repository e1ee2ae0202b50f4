"""The processes of one installation, as the driver sees them: it starts, ends, freezes and counts them by pid."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import die_with_parent
from tests.faults.nursery import CELERY
from tests.stack.processes import ROOT
from tests.stack.waiting import wait_until

START_SECONDS = 60
STOP_SECONDS = 20
RESTARTS = 2
READY = {"celery": " ready.", "consumer": "Consuming events."}
COMMANDS = {"celery": ["-m", *CELERY.split()], "consumer": ["manage.py", "consume_events"]}
# Who makes up an installation: the role and what its command line has beside it.
Cast = dict[str, tuple[str, tuple[str, ...]]]
MEMBERS: Cast = {
    "relay-a": ("celery", ("--beat", "-n", "relay-a@faults")),
    "relay-b": ("celery", ("-n", "relay-b@faults")),
    "consumer-a": ("consumer", ()),
    "consumer-b": ("consumer", ()),
}
# A member of the consumer group that comes and goes.
GUEST = ("consumer", ())
# States of a process in /proc: gone, or only waiting to be reaped.
_ENDED = ("", "Z", "X")


@dataclass
class Member:
    """A live process and where its words begin in its log."""

    pid: int
    # when the kernel started it: the pid alone may be somebody else's by now
    started: str
    role: str
    log: Path
    log_start: int


class EndedBeforeReady(RuntimeError):
    """A process of the crew ended before it took part."""


class Crew:
    """Starts processes through the nursery. Use as a context manager; it ends every process it started."""

    nursery = "tests.faults.nursery"
    ready: Mapping[str, str] = READY

    def __init__(
        self, environment: Mapping[str, str], folder: Path, *, is_cold: bool = False, cast: Cast | None = None
    ) -> None:
        self._environment = dict(environment)
        self._folder = folder
        self.cast = MEMBERS if cast is None else cast
        # start the product's processes by their own command lines, as production does; a second slower each
        self._is_cold = is_cold
        self._cold: list[subprocess.Popen[bytes]] = []
        self._members: dict[str, Member] = {}
        # faults are threads, and each may start a process
        self._lock = threading.RLock()
        self._leaving: set[str] = set()

    def __enter__(self) -> "Crew":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", self.nursery],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self._folder / "nursery.log").open("ab"),
            text=True,
            bufsize=1,
        )
        assert self._nursery.stdout
        if self._nursery.stdout.readline() != "ready\n":
            raise RuntimeError((self._folder / "nursery.log").read_text()[-4000:])
        return self

    def __exit__(self, *_error: object) -> None:
        for name in list(self._members):
            self.kill(name)
        assert self._nursery.stdin
        self._nursery.stdin.close()
        self._nursery.wait(10)

    def start(self, name: str, role: str = "", *arguments: str) -> None:
        """Start a process unless it runs; children that outlived its predecessor are ended first."""
        with self._lock:
            if not self.is_running(name):
                self._start(name, role, arguments)

    def _start(self, name: str, role: str, arguments: tuple[str, ...]) -> None:
        self._end_group(name)
        if not role:
            role, arguments = self.cast.get(name, GUEST)
        log = self._folder / f"{name}.log"
        log_start = log.stat().st_size if log.exists() else 0
        bear = self._bear_cold if self._is_cold and role in COMMANDS else self._bear
        pid = bear(name, role, arguments, log)
        self._leaving.discard(name)
        self._members[name] = Member(pid, _look(pid)[1], role, log, log_start)

    def _bear(self, name: str, role: str, arguments: tuple[str, ...], log: Path) -> int:
        order = {"name": name, "role": role, "arguments": arguments, "log": str(log)}
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._nursery.stdin.write(json.dumps(order) + "\n")
        return int(self._nursery.stdout.readline())

    def _bear_cold(self, name: str, role: str, arguments: tuple[str, ...], log: Path) -> int:
        for process in self._cold:
            process.poll()  # reaps what has ended
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *COMMANDS[role], *arguments],
                cwd=ROOT,
                env=self._environment | {"FAULTS_PROCESS": name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._cold.append(process)
        return process.pid

    def wait_ready(self, *names: str) -> None:
        """Wait until processes take part."""
        for name in names:
            wait_until(lambda name=name: self._is_ready(name), START_SECONDS, f"a ready {name}")

    def ensure_running(self) -> None:
        """Thaw what is frozen, start what is missing, and wait until everything takes part."""
        for name in self._members:
            self.signal(name, signal.SIGCONT)
        for name in list(self._leaving):  # it runs and has been ready, and yet it will be missing in a moment
            self.wait_gone(name, STOP_SECONDS)
            self.kill(name)
        self._start_missing()
        for name in self.cast:
            if not self.has_beat(name):
                self.kill(name)
        self._start_missing()

    def restart_ended(self) -> None:
        """Start who has ended by itself, as a supervisor does; waits for nobody."""
        for name in self.cast:
            self.start(name)

    def _start_missing(self) -> None:
        """Start who is missing; a member that notices only now that its beat is gone ends, and is started once more."""
        for _ in range(RESTARTS):
            for name in self.cast:
                self.start(name)
            with contextlib.suppress(EndedBeforeReady):
                return self.wait_ready(*self.cast)
        self.wait_ready(*self.cast)

    def is_running(self, name: str) -> bool:
        """Whether the process lives, frozen or not."""
        return self._state(name) not in _ENDED

    def pid(self, name: str) -> int:
        """The process that has the name now."""
        return self._members[name].pid

    def is_frozen(self, name: str) -> bool:
        """Whether the process is stopped, by us or by itself."""
        return self._state(name) in ("T", "t")

    def has_beat(self, name: str) -> bool:
        """Whether a worker that should have a beat has one; true for everybody else."""
        return "--beat" not in self.cast.get(name, GUEST)[1] or bool(self._children(name))

    def kill_beat(self, name: str) -> None:
        """End the beat process of a worker."""
        for pid in self._children(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self.is_running(name):
            if number == signal.SIGTERM:
                self._leaving.add(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._members[name].pid, number)

    def kill(self, name: str) -> None:
        """End a process and its children at once, and wait for that."""
        if name in self._members:
            self._end_group(name)
            wait_until(lambda: not self.is_running(name), STOP_SECONDS, f"the end of {name}")

    def wait_gone(self, name: str, seconds: float) -> bool:
        """Wait until a process has ended by itself; false when it still runs."""
        deadline = time.monotonic() + seconds
        while self.is_running(name):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def log_tail(self, name: str) -> str:
        """The last words of a process."""
        log = self._members[name].log
        return log.read_text(errors="replace")[-3000:] if log.exists() else ""

    def _is_ready(self, name: str) -> bool:
        if not self.is_running(name):
            raise EndedBeforeReady(f"{name} ended before it was ready:\n{self.log_tail(name)}")
        member = self._members[name]
        if not member.log.exists():
            return False  # born this instant
        with member.log.open("rb") as log:
            log.seek(member.log_start)
            return self.ready.get(member.role, "").encode() in log.read()

    def _children(self, name: str) -> list[int]:
        if not self.is_running(name):
            return []
        pid = self._members[name].pid
        try:
            children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []
        return [child for child in children if _look(child)[0] not in _ENDED]  # a killed beat is never reaped

    def _state(self, name: str) -> str:
        member = self._members.get(name)
        if member is None:
            return ""
        state, started = _look(member.pid)
        return state if started == member.started else ""

    def _end_group(self, name: str) -> None:
        member = self._members.get(name)
        if member is None or _look(member.pid)[1] not in (member.started, ""):
            return  # the number is somebody else's, so no group of ours has it either
        # one that was born this instant leads no group yet
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                end(member.pid, signal.SIGKILL)


def _look(pid: int) -> tuple[str, str]:
    """A process's state and when it was started; two empty texts when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]
