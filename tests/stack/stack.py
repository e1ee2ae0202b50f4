"""The harness: the three processes of one installation, the model they talk to, and the parts they stand on."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx2

from tests.scripted_model import ScriptedModel, running_scripted_model
from tests.stack.books import Books, read_books
from tests.stack.parts import EmbeddedParts, Parts, ServiceParts
from tests.stack.person import Person
from tests.stack.processes import PYTHON, ROOT, Process
from tests.stack.waiting import wait_until

KINDS = ("embedded", "services")
# As scripts/run.py starts them; the worker is asked to say when it is ready.
COMMANDS = {
    "web": "-m uvicorn smartflow.asgi:application --host 127.0.0.1 --port {port} --no-access-log"
    " --timeout-graceful-shutdown 3",
    "worker": "-m celery --quiet -A smartflow worker --beat --pool threads --concurrency 4 --without-mingle"
    " --without-gossip --without-heartbeat --loglevel INFO",
    "consumer": "manage.py consume_events",
}
# What a process has written once it takes part; the web process is asked over HTTP instead.
READY_LINES = {"worker": " ready.", "consumer": "Consuming events."}
START_SECONDS = 60
# How many invitations a stack has; each costs a millisecond at its start.
PEOPLE = 400
CRASH_POINTS = ROOT / "tests" / "crash_points"
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


class Stack:
    """One installation of its own. Use as a context manager; it ends every process that it started."""

    alive: ClassVar[list["Stack"]] = []

    def __init__(
        self, kind: str, folder: Path, *, settings: Mapping[str, str] | None = None, has_crash_points: bool = False
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self.parts: Parts
        self.model: ScriptedModel
        self._settings = dict(settings or {})
        self._has_crash_points = has_crash_points
        self._exits = ExitStack()

    def __enter__(self) -> "Stack":
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self.processes.values():
            process.kill()
        if self in Stack.alive:
            Stack.alive.remove(self)
        self._exits.close()

    def _open(self) -> None:
        Stack.alive.append(self)
        (self.folder / "data").mkdir()
        (self.folder / "crash").mkdir()
        self.parts = EmbeddedParts(self.folder) if self.kind == "embedded" else ServiceParts()
        self._exits.callback(self.parts.close)
        self._model_exits = self._exits.enter_context(ExitStack())
        self.model = self._model_exits.enter_context(running_scripted_model())
        self.port = _free_port()
        environment = self._environment()
        self._strangers = self._prepare(environment)
        for name, command in COMMANDS.items():
            arguments = command.format(port=self.port).split()
            self.processes[name] = Process(name, arguments, environment, self.folder / f"{name}.log")
        self.ensure_running()

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        crash = {"PYTHONPATH": str(CRASH_POINTS), "CRASH_POINTS_FOLDER": str(self.folder / "crash")}
        return {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "smartflow.settings",
            "SMARTFLOW_DATA_DIR": str(self.folder / "data"),
            "RATE_LIMITS": "off",
            "OPENAI_BASE_URL": self.model.base_url,
            "OPENAI_API_KEY": "sk-scripted-0123456789",
            "SMARTFLOW_MODEL_WORKER": "scripted:tokens=8",
            **self.parts.environment(),
            **(crash if self._has_crash_points else {}),
            **self._settings,
        }

    @staticmethod
    def _prepare(environment: dict[str, str]) -> list[tuple[int, str, str, str]]:
        command = [PYTHON, "-m", "tests.stack.prepare", str(PEOPLE)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        people: list[tuple[int, str, str, str]] = json.loads(done.stdout)
        return people

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ensure_running(self) -> None:
        """Start what does not run, undo what was done to connections, and wait until everything takes part."""
        self.parts.heal()
        self.start(*COMMANDS)

    def start(self, *names: str) -> None:
        """Start processes and wait until they take part."""
        for name in names:
            self.processes[name].start()
        for name in names:
            wait_until(lambda name=name: self._is_ready(name), START_SECONDS, f"a ready {name}")

    def stop(self, *names: str) -> None:
        """Ask processes to end and wait for that."""
        for name in names:
            self.processes[name].stop()

    def kill(self, *names: str) -> None:
        """End processes with SIGKILL, as if the power went."""
        for name in names:
            self.processes[name].kill()

    def restart(self, *names: str) -> None:
        """Stop processes gently and start them again."""
        self.stop(*names)
        self.start(*names)

    def manage(self, *arguments: str, **variables: str) -> str:
        """Run a manage.py command of this installation and return what it printed."""
        done = subprocess.run(
            [PYTHON, "manage.py", *arguments],
            cwd=ROOT,
            env={**self._environment(), **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def arm(self, point: str) -> None:
        """Let the next process that comes to this crash point kill itself there."""
        assert self._has_crash_points
        (self.folder / "crash" / point).touch()

    @contextmanager
    def extra(self, name: str, command: str, **settings: str) -> Iterator[Process]:
        """Run one more process; `{port}` in its command is a free one, and it is up when that answers."""
        port = _free_port()
        environment = {**self._environment(), **settings}
        process = Process(name, command.format(port=port).split(), environment, self.folder / f"{name}.log")
        process.port = port
        self.processes[name] = process
        try:
            self.start(name)
            yield process
        finally:
            process.kill()
            del self.processes[name]

    @contextmanager
    def second_web(self, **settings: str) -> Iterator[str]:
        """Run another web process; the address of its front door."""
        with self.extra("web2", COMMANDS["web"], **settings) as process:
            yield f"http://127.0.0.1:{process.port}"

    def _is_ready(self, name: str) -> bool:
        process = self.processes[name]
        if not process.is_running:
            raise AssertionError(f"{name} ended before it was ready:\n{process.log_tail()}")
        if name in READY_LINES:
            return READY_LINES[name] in process.log_since_start()
        try:
            port = process.port or self.port
            return httpx2.get(f"http://127.0.0.1:{port}/health/live", timeout=5, trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    @contextmanager
    def model_down(self) -> Iterator[None]:
        """End the model server; start it again on its port afterwards."""
        port = self.model.port
        self._model_exits.close()
        try:
            yield
        finally:
            self.model = self._model_exits.enter_context(running_scripted_model(port=port))

    def invite(self) -> Person:
        """Return a signed-in user who has done nothing yet."""
        user_id, username, token, refresh_token = self._strangers.pop()
        person = Person(self.base_url, username)
        self._exits.callback(person.close)
        person.user_id, person.token, person.refresh_token = user_id, token, refresh_token
        return person

    def sign_up(self, username: str) -> Person:
        """Register a new user and sign in, through the front door."""
        person = Person(self.base_url, username)
        self._exits.callback(person.close)
        person.register()
        return person

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """What the database holds, read past the product."""
        return self.parts.rows(sql, *parameters)

    def books(self, person: Person) -> Books:
        """What the database holds of one user."""
        return read_books(self.rows, person.user_id)

    def wait_settled(self, person: Person, *, messages: int, within_seconds: float = 20) -> Books:
        """Wait until so many messages are written and nothing is pending; check that all the books agree."""

        def is_settled() -> bool:
            books = self.books(person)
            return books.is_settled and len(books.histories) == messages

        try:
            wait_until(is_settled, within_seconds)
        except AssertionError:
            books = self.books(person)
            seen = f"{len(books.histories)} messages, events {dict(books.states)}"
            raise AssertionError(f"{messages} messages expected within {within_seconds} s, seen: {seen}") from None
        books = self.books(person)
        books.assert_balanced()
        return books

    def last_body(self) -> dict[str, Any]:
        """Return what the model was sent last."""
        body: dict[str, Any] = self.model.seen()["bodies"][-1]
        return body


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
