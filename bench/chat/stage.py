"""The processes of one measurement: the model, the product's web processes, the raw application, the load."""

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.chat.upstream import MODEL
from bench.processes import PYTHON, ROOT, BenchFailed, Process, wait_until
from bench.servers import Corner

# As scripts/run.py starts the product; the raw application is served in the same way.
_SERVED = "-m uvicorn {application} --host 127.0.0.1 --port {port} --no-access-log --timeout-graceful-shutdown 3"
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
# Nothing is to be refused, but everything is checked: what is measured is what the process can do.
_LIMITS = {
    "CHAT_MAX_LIVE_RUNS": "5000",
    "CHAT_MAX_LIVE_RUNS_OF_USER": "5000",
    "CHAT_MAX_TAILS_OF_USER": "20000",
    **{f"RATE_LIMIT_{group}": "999999/1" for group in ("READ", "WRITE", "AGENT", "ADDRESS")},
    "CHAT_SILENCE_TIMEOUT_SECONDS": "900",
}
_TOKEN_LIMIT = 2_000_000_000
_JOB_SECONDS = 300


def raise_file_limit() -> None:
    """Let every process that is started from here hold as many connections as there may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 11_000:
        raise BenchFailed(f"this shell may open {hard} files; 10,000 streams want `ulimit -n 11000`")


@dataclass(frozen=True)
class Server:
    """A running process, and where it listens."""

    process: Process
    port: int
    kind: str

    @property
    def pid(self) -> int:
        return self.process.pid


class Stage:
    """One database of the product, its users, and what runs on it."""

    def __init__(self, corner: Corner, folder: Path, *, users: int) -> None:
        self._corner = corner
        self._folder = folder
        self._count = 0
        self._kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment = corner.environment()
        self.database_port = urlsplit(environment["DATABASE_URL"]).port or 3306
        self.environment = {
            **self._kept,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "smartflow.settings",
            "SMARTFLOW_DATA_DIR": str(folder),
            **environment,
        }
        self._users_file = folder / "users.json"
        self._users_file.write_text(json.dumps(self._prepare(users)))

    def _prepare(self, users: int) -> list[str]:
        """Migrate, sign people up, and let each use as much as there is."""
        command = [PYTHON, "-m", "tests.stack.prepare", str(users)]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchFailed(done.stderr[-3000:])
        with contextlib.closing(self._corner.connect()) as connection:
            connection.cursor().execute("UPDATE users SET token_limit = %s", (_TOKEN_LIMIT,))
        return [token for _, _, token, _ in json.loads(done.stdout)]

    @contextmanager
    def model(self) -> Iterator[Server]:
        """Run the scripted model."""
        process = self._spawn("model", ["-m", "bench.chat.upstream"], self._kept)
        with _ended(process):
            process.wait_said("listening on ")
            found = re.search(r"listening on (\d+)", process.said())
            assert found is not None
            yield Server(process, int(found.group(1)), "direct")

    @contextmanager
    def web(self, model: Server, **variables: str) -> Iterator[Server]:
        """Run one web process of the product."""
        environment = {**self.environment, **_model_variables(model), **_LIMITS, **variables}
        with self._serve("web", "smartflow.asgi:application", "/health/live", environment) as server:
            yield server

    @contextmanager
    def floor(self, model: Server) -> Iterator[Server]:
        """Run the raw application."""
        environment = {**self._kept, **_model_variables(model)}
        with self._serve("relay", "bench.chat.floor:application", "/", environment) as server:
            yield server

    def measure(self, job: str, server: Server, *, kind: str = "", **options: Any) -> dict[str, Any]:
        """Run one job of the load against a server and return its figures. Raises: BenchFailed."""
        with self.measuring(job, server, kind=kind, **options) as figures:
            return figures()

    @contextmanager
    def measuring(
        self, job: str, server: Server, *, kind: str = "", **options: Any
    ) -> Iterator[Callable[[], dict[str, Any]]]:
        """Begin a job; what is given waits for its figures."""
        server.process.check_alive()
        target = {"port": server.port, "kind": kind or _KINDS.get(server.kind, server.kind)}
        users = str(self._users_file) if server.kind == "web" else ""
        asked = json.dumps({"job": job, "target": target, "users": users, **options})
        process = self._spawn(f"load-{job}", ["-m", "bench.chat.load", asked], self._kept)

        def figures() -> dict[str, Any]:
            try:
                found: dict[str, Any] = json.loads(process.wait_done(seconds=_JOB_SECONDS).splitlines()[-1])
            except BenchFailed as error:
                raise BenchFailed(f"{error}\n{server.kind}:\n{server.process.said()[-1500:]}") from None
            return found

        with _ended(process):
            yield figures

    @contextmanager
    def _serve(self, kind: str, application: str, path: str, environment: Mapping[str, str]) -> Iterator[Server]:
        port = _free_port()
        process = self._spawn(kind, _SERVED.format(application=application, port=port).split(), environment)
        with _ended(process):
            wait_until(lambda: _answers(process, f"http://127.0.0.1:{port}{path}"), seconds=60, what=f"a ready {kind}")
            yield Server(process, port, kind)

    def _spawn(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> Process:
        self._count += 1
        return Process(name, arguments, environment, self._folder / f"{name}-{self._count}.log")


_KINDS = {"web": "product", "relay": "relay"}


@contextmanager
def _ended(process: Process) -> Iterator[None]:
    try:
        yield
    finally:
        process.stop()


def _model_variables(model: Server) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{model.port}/v1",
        "OPENAI_API_KEY": "sk-scripted-0123456789",
        "SMARTFLOW_MODEL_WORKER": MODEL,
    }


def _answers(process: Process, url: str) -> bool:
    process.check_alive()
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
