"""`make run`: prepare the data folder, start every process under one supervisor, say where to look, stop on Ctrl-C.

Standard library only. The processes are the ones a cluster runs: web, worker with beat, consumer. One that dies is
started again; one that keeps dying stops everything, because a half-running product misleads.
"""

import contextlib
import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PORT = os.environ.get("PORT", "").strip() or "8000"
DATA_DIR = Path(os.environ.get("SMARTFLOW_DATA_DIR", "").strip() or ROOT / "var").expanduser()
COMMANDS = {
    "web": [
        *(BIN / "uvicorn", "smartflow.asgi:application", "--host", "127.0.0.1", "--port", PORT),
        *("--no-access-log", "--timeout-graceful-shutdown", "3"),
    ],
    "worker": [
        *(BIN / "celery", "--quiet", "-A", "smartflow", "worker", "--beat", "--pool", "threads", "--concurrency", "4"),
        *("--without-mingle", "--without-gossip", "--without-heartbeat"),
    ],
    "consumer": [sys.executable, "manage.py", "consume_events"],
}
COLOURS = {"web": "36", "worker": "33", "consumer": "35", "run": "32"}
READY_SECONDS = 60
STOP_SECONDS = 12
# A process that dies this often without having lived this long is not restarted any more.
MOST_QUICK_DEATHS = 5
QUICK_DEATH_SECONDS = 5


def say(name: str, line: str) -> None:
    """Print one line behind its process's name."""
    label = f"{name:<8} |"
    if sys.stdout.isatty():
        label = f"\033[{COLOURS[name]}m{label}\033[0m"
    print(f"{label} {line}", flush=True)


def die_with_parent() -> None:
    """Ask the kernel to end this child when the supervisor is killed: nobody else would. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Supervised:
    """One process and the thread that prefixes its output and starts it again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_given_up = False
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep_running, daemon=True)

    def start(self) -> None:
        """Start it in the background."""
        self._thread.start()

    def terminate(self) -> None:
        """Ask it to stop and do not start it again."""
        self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for its end; kill it when it takes longer."""
        self._thread.join(seconds)
        if self._thread.is_alive() and self._process is not None:
            say("run", f"{self.name} did not stop in {STOP_SECONDS} s and is killed")
            os.killpg(self._process.pid, signal.SIGKILL)
            self._thread.join(2)

    def _keep_running(self) -> None:
        quick_deaths = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = self._run_once()
            if self._stopping.is_set():
                return
            quick_deaths = quick_deaths + 1 if time.monotonic() - started < QUICK_DEATH_SECONDS else 0
            if quick_deaths >= MOST_QUICK_DEATHS:
                say("run", f"{self.name} keeps ending (exit code {code}); see its last lines above")
                self.has_given_up = True
                return
            wait = min(2**quick_deaths, 10)
            say("run", f"{self.name} ended with exit code {code}; starting it again in {wait} s")
            self._stopping.wait(wait)

    def _run_once(self) -> int:
        self._process = subprocess.Popen(
            [str(part) for part in COMMANDS[self.name]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the others in order
            preexec_fn=die_with_parent,
        )
        process = self._process
        reading = threading.Thread(target=self._print_output, args=(process,), daemon=True)
        reading.start()
        code = process.wait()
        # Celery's beat is a child of the worker and would go on, and hold the pipe, when the worker was killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        reading.join(2)
        return code

    def _print_output(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                say(self.name, line.rstrip())


def prepare() -> list[str]:
    """
    Migrate and create the operator's account; return the lines to show once everything runs.

    Skipped when the same migrations were applied to the same SQLite file before: a second start is then twice as fast.
    """
    stamp = DATA_DIR / "prepared"
    wanted = _fingerprint()
    has_own_database = not os.environ.get("DATABASE_URL", "").strip()
    if has_own_database and (DATA_DIR / "smartflow.sqlite3").exists() and _read(stamp) == wanted:
        return []
    say("run", "preparing the database")
    _manage("migrate", "--no-input", "--verbosity", "0")
    shown = _manage("ensure_admin").strip().splitlines()
    for line in shown:  # at once too: should the start fail below, it would never be shown again
        say("run", line)
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    stamp.write_text(wanted)
    return shown


def _fingerprint() -> str:
    migrations = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/**/migrations/*.py"))
    pinned = (ROOT / "requirements.txt").read_bytes()  # the libraries' migrations
    return hashlib.sha256(repr(migrations).encode() + pinned).hexdigest()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _manage(*arguments: str) -> str:
    environment = {**os.environ, "DATABASE_READ_TIMEOUT_SECONDS": "0"}  # a migration may take its time
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit((done.stderr or done.stdout).strip())
    return done.stdout


def check_port() -> None:
    """Stop with a sentence when PORT is no port or another program has it."""
    if not PORT.isdigit() or not 1 <= int(PORT) <= 65535:
        sys.exit(f"PORT is wrong: {PORT!r} is not a whole number from 1 to 65535. Example: PORT=8000")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(PORT)))
        except OSError as error:
            sys.exit(f"PORT {PORT} cannot be used ({error.strerror}). Another one: PORT=8001 make run")


def wait_until_ready(web: Supervised, stopping: threading.Event) -> bool:
    """Wait for the web process's own word; false when it gave up or it took too long."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and not web.has_given_up and not stopping.is_set():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health/ready", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def show_banner(admin_lines: list[str], seconds: float) -> None:
    """Say which page to open and which command to try."""
    base = f"http://127.0.0.1:{PORT}"
    json_header = "-H 'Content-Type: application/json'"
    account = '{"username":"ada","password":"correct-horse-42"}'
    lines = [
        "",
        f"SmartFlow runs (ready after {seconds:.1f} s). Ctrl-C stops it.",
        "",
        f"  open this                    {base}/app/",
        f"  API, with a page to try it   {base}/api/docs/",
        f"  admin                        {base}/admin/",
        *(f"  {line}" for line in admin_lines),
        "",
        "  Register, sign in and talk:",
        f"    curl -s {base}/api/v1/user/register {json_header} -d '{account}'",
        f"    TOKEN=$(curl -s {base}/api/v1/user/login {json_header} -d '{account}' |"
        ' sed \'s/.*"access_token":"\\([^"]*\\).*/\\1/\')',
        f'    curl -N {base}/api/v1/agent/chat -H "Authorization: Bearer $TOKEN" {json_header}'
        ' -d \'{"message":"Hello!"}\'',
        "",
    ]
    print("\n".join(lines), flush=True)


def main() -> int:
    """Run until Ctrl-C, SIGTERM, or a process that keeps dying."""
    started = time.monotonic()
    check_port()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    admin_lines = prepare()
    processes = {name: Supervised(name) for name in COMMANDS}
    try:
        # The page first: three imports at once would triple the wait for it.
        processes["web"].start()
        if wait_until_ready(processes["web"], stopping):
            show_banner(admin_lines, time.monotonic() - started)
        for name in ("worker", "consumer"):
            if not stopping.is_set():
                processes[name].start()
        while not stopping.is_set() and not any(process.has_given_up for process in processes.values()):
            stopping.wait(0.2)
    finally:
        say("run", "stopping")
        alive = [process for process in processes.values() if process._thread.is_alive()]
        for process in alive:
            process.terminate()
        for process in alive:
            process.wait(STOP_SECONDS)
    return 1 if any(process.has_given_up for process in processes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
