"""One installation of the product: a fresh database, its processes as `make run` starts them."""

import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from bench.processes import Process, wait_until
from bench.statements import Statements

_WORKER = (
    "-m celery -A smartflow worker{beat} --pool threads --concurrency {threads} --without-mingle"
    " --without-gossip --without-heartbeat --loglevel INFO"
)
COMMANDS = {
    "web": "-m uvicorn smartflow.asgi:application --host 127.0.0.1 --port {port} --no-access-log",
    "worker": _WORKER.format(beat=" --beat", threads=4),
    "consumer": "manage.py consume_events",
    # of several relays, each in a process of its own: a thread for its relay and nothing else
    "relay": _WORKER.format(beat=" --hostname %h-{number}", threads=1),
    "beat": "-m celery -A smartflow beat --loglevel INFO --schedule {folder}/beat",
}
READY_LINES = {"worker": " ready.", "relay": " ready.", "consumer": "Consuming events.", "beat": "is starting"}
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


class Installation:
    """Starts and stops processes that share one environment. Use close() or a context manager."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = _free_port()
        self.environment = {
            **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "smartflow.settings",
            "SMARTFLOW_DATA_DIR": str(folder),
            "RATE_LIMITS": "off",
            **variables,
        }
        self._running: dict[str, Process] = {}
        self.statements = Statements(folder)
        self.run("migrate", "manage.py migrate --verbosity 0")

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, name: str, command: str, *, seconds: float = 120) -> str:
        """Run a command to its end and return what it wrote."""
        process = self.spawn(name, command)
        try:
            return process.wait_done(seconds=seconds)
        finally:
            self.stop(name)

    def spawn(self, name: str, command: str, **variables: str) -> Process:
        """Start a command that runs beside others."""
        environment = {**self.environment, **self.statements.environment(name), **variables}
        process = Process(name, command.split(), environment, self.folder / f"{name}.log")
        self._running[name] = process
        return process

    def start(self, *names: str, **variables: str) -> None:
        """Start processes of the product and wait until they take part; `relay 2` is the second of its kind."""
        for name in names:
            kind, _, number = name.partition(" ")
            self.spawn(name, COMMANDS[kind].format(port=self.port, number=number, folder=self.folder), **variables)
        for name in names:
            if name == "web":
                wait_until(self._answers, seconds=60, what="an answer of the web process")
            else:
                self._running[name].wait_said(READY_LINES[name.split(" ")[0]])

    def start_beside(self, name: str, command: str) -> int:
        """Start another application under the product's server and return its port."""
        port = _free_port()
        process = self.spawn(name, command.format(port=port))
        process.wait_said("Application startup complete")
        return port

    def cpu_seconds(self, name: str) -> float:
        """Return the processor time that a process has taken, as the kernel counts it. Linux only."""
        fields = Path(f"/proc/{self._running[name].pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def count_lines(self, pattern: str) -> int:
        """Return how many lines of all logs match."""
        wanted = re.compile(pattern)
        logs = (path.read_text(errors="replace").splitlines() for path in self.folder.glob("*.log"))
        return sum(bool(wanted.search(line)) for lines in logs for line in lines)

    def stop(self, *names: str) -> None:
        """Stop processes and wait for their end."""
        for name in names:
            self._running.pop(name).stop()

    def check_alive(self) -> None:
        """Raise BenchFailed when a process has ended by itself."""
        for process in self._running.values():
            process.check_alive()

    def close(self) -> None:
        """End everything that was started here."""
        self.stop(*list(self._running))

    def _answers(self) -> bool:
        self._running["web"].check_alive()
        try:
            with urllib.request.urlopen(f"{self.base_url}/health/live", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
