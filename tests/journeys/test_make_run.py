"""`make run` as a newcomer meets it: the supervisor, the offline model, the very commands it prints."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stack.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


class Run:
    """One `scripts/run.py` with a data folder of its own and everything it prints."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = folder / "run.log"
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {**environment, "PORT": str(self.port), "SMARTFLOW_DATA_DIR": str(folder / "data")}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and return after how many seconds it said that it is ready."""
        begun = time.monotonic()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "scripts/run.py"], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        wait_until(lambda: "Ctrl-C stops it." in self.printed, 90, "the banner")
        seconds = time.monotonic() - begun
        wait_until(lambda: "Consuming events." in self.printed, 60, "a consumer")
        return seconds

    def stop(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)

    @property
    def printed(self) -> str:
        return self._log.read_text()

    def shell(self, script: str) -> str:
        return subprocess.run(
            ["bash", "-ec", script], capture_output=True, text=True, check=True, env=self._environment
        ).stdout

    def children(self) -> dict[int, str]:
        """Return the processes below the supervisor, with their command lines."""
        listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
        found: dict[int, str] = {}
        parents = {self.process.pid}
        while parents:
            level = {int(pid): args for pid, ppid, args in rows if int(ppid) in parents}
            found |= level
            parents = set(level)
        return found


@pytest.fixture
def run(tmp_path):
    (tmp_path / "data").mkdir()
    run = Run(tmp_path)
    yield run
    if run.process and run.process.poll() is None:
        run.process.kill()


def printed_commands(banner: str) -> str:
    lines = re.findall(r"^    (curl .*|TOKEN=.*)$", banner, re.MULTILINE)
    assert len(lines) == 3
    return "\n".join(lines)


def test_newcomer_starts_talks_restarts_and_finds_the_conversation(run):
    run.start()
    assert len(re.findall(r"admin password \(shown once\): \S+", run.printed)) == 2  # at once, and in the banner
    first_page = re.search(r"^ +open this +(http\S+)$", run.printed, re.MULTILINE)[1]
    assert "<form" in run.shell(f"curl -sL {first_page}")
    answer = run.shell(printed_commands(run.printed))
    assert "offline" in answer
    assert answer.count("data: [DONE]") == 1
    assert run.stop() == 0
    assert run.children() == {}

    run.start()
    assert "admin password" not in run.printed
    sign_in, base = printed_commands(run.printed).splitlines()[1], f"http://127.0.0.1:{run.port}/api/v1/agent"
    ask = f'curl -s {base}/conversation-list -H "Authorization: Bearer $TOKEN"'
    # the worker may still be starting; the counters follow
    wait_until(lambda: '"message_count":2' in run.shell(f"{sign_in}\n{ask}"), 30, "both messages counted")
    assert run.stop() == 0


def test_killed_worker_is_started_again_and_leaves_no_orphan(run):
    run.start()
    before = run.children()
    worker = min(pid for pid, command in before.items() if "celery" in command)
    os.kill(worker, signal.SIGKILL)

    wait_until(lambda: "worker ended with exit code" in run.printed, 20, "the supervisor's word")
    old = {pid for pid, command in before.items() if "celery" in command}
    wait_until(lambda: not old & run.children().keys(), 20, "the end of the worker's children")
    alive = subprocess.run(["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, old))], capture_output=True, text=True)
    assert [line for line in alive.stdout.splitlines() if "Z" not in line] == []
    wait_until(lambda: any("celery" in command for command in run.children().values()), 30, "a new worker")
    assert run.stop() == 0


def test_port_that_is_taken_is_named(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", run.port))
        other.listen()
        done = subprocess.run(
            [sys.executable, "scripts/run.py"], cwd=ROOT, env=run._environment, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"PORT {run.port} cannot be used (Address already in use). Another one: PORT=8001 make run"
    )
