"""scripts/services.py where no server is needed: whom it signals, what it takes as given, how it says no.

Each test runs the real command against a folder and ports of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "services.py"
VARIABLES = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "CELERY_BROKER_URL")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES and "_PORT" not in name}

    def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), *arguments],
            env={**clean, "SMARTFLOW_SERVICES_DIR": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run_script


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process the script did not start, with our folder on its command line, as an editor of a log would have it."""
    with subprocess.Popen([sys.executable, "-c", "input()", str(tmp_path / "redis")], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of a server that is somebody else's."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def write_record(folder: Path, pid: int, started: str, marker: str) -> None:
    (folder / "redis.pid").write_text(json.dumps({"pid": pid, "started": started, "marker": marker}))


def read_started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def read_env(output: str) -> dict[str, str]:
    lines = [line.removeprefix("export ") for line in output.splitlines()]
    return dict(line.split("=", 1) for line in lines)


@needs_proc
@pytest.mark.parametrize("command", ["stop", "kill", "pause"])
def test_no_signal_reaches_a_pid_that_was_handed_out_again(
    run: Run, tmp_path: Path, stranger: subprocess.Popen[bytes], command: str
) -> None:
    write_record(tmp_path, stranger.pid, started="1", marker=str(tmp_path / "redis"))
    run(*(["stop", "--only", "redis"] if command == "stop" else [command, "redis"]))
    assert stranger.poll() is None
    assert "State:\tT" not in Path(f"/proc/{stranger.pid}/status").read_text()


@needs_proc
@pytest.mark.parametrize("command", ["stop", "kill", "pause"])
def test_no_signal_reaches_a_process_with_another_command_line(
    run: Run, tmp_path: Path, stranger: subprocess.Popen[bytes], command: str
) -> None:
    write_record(tmp_path, stranger.pid, read_started(stranger.pid), marker="/somewhere/else/redis")
    run(*(["stop", "--only", "redis"] if command == "stop" else [command, "redis"]))
    assert stranger.poll() is None
    assert "State:\tT" not in Path(f"/proc/{stranger.pid}/status").read_text()


@needs_proc
def test_stop_ends_the_process_the_record_proves_ours(
    run: Run, tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    write_record(tmp_path, stranger.pid, read_started(stranger.pid), marker=str(tmp_path / "redis"))
    assert run("stop", "--only", "redis").returncode == 0
    assert stranger.wait(timeout=10) == -signal.SIGTERM
    assert not (tmp_path / "redis.pid").exists()


def test_stop_survives_an_unreadable_record(run: Run, tmp_path: Path) -> None:
    (tmp_path / "redis.pid").write_text("{")
    done = run("stop", "--only", "redis")
    assert (done.returncode, done.stderr) == (0, "")


def test_kill_says_so_when_there_is_nothing_to_signal(run: Run) -> None:
    done = run("kill", "kafka")
    assert done.returncode == 1
    assert "kafka: nothing to signal" in done.stderr


def test_env_leads_to_own_ports_by_default(run: Run) -> None:
    assert read_env(run("env").stdout) == {
        "DATABASE_URL": "mysql://smartflow:smartflow@127.0.0.1:13306/smartflow",
        "REDIS_URL": "redis://127.0.0.1:16379/0",
        "CELERY_BROKER_URL": "redis://127.0.0.1:16379/1",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:19092",
    }


def test_env_carries_changed_ports_so_that_later_commands_find_them(run: Run) -> None:
    shown = read_env(run("env", "--only", "redis", SMARTFLOW_REDIS_PORT="26379").stdout)
    assert shown["REDIS_URL"] == "redis://127.0.0.1:26379/0"
    assert shown["SMARTFLOW_REDIS_PORT"] == "26379"


def test_env_with_free_ports_avoids_a_stranger_and_keeps_the_rest(run: Run, listener: int) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        free = str(nobody.getsockname()[1])
    ports = {"SMARTFLOW_KAFKA_PORT": str(listener), "SMARTFLOW_KAFKA_CONTROLLER_PORT": free}
    shown = read_env(run("env", "--free-ports", "--only", "kafka", **ports).stdout)
    assert shown["SMARTFLOW_KAFKA_CONTROLLER_PORT"] == free
    assert shown["SMARTFLOW_KAFKA_PORT"] != str(listener)
    assert shown["KAFKA_BOOTSTRAP_SERVERS"] == f"127.0.0.1:{shown['SMARTFLOW_KAFKA_PORT']}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://u:p@db.example:3306/other"),
        ("REDIS_URL", "redis://cache.example:6379/3"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a.example:9092,b.example:9092"),
    ],
)
def test_env_echoes_a_given_address(run: Run, variable: str, value: str) -> None:
    assert read_env(run("env", **{variable: value}).stdout)[variable] == value


def test_given_server_is_asked_and_not_started(run: Run, tmp_path: Path, listener: int) -> None:
    done = run("start", "--only", "redis", REDIS_URL=f"redis://127.0.0.1:{listener}/0")
    assert done.returncode == 1
    assert done.stderr.strip() == "redis: the server that REDIS_URL names does not answer"
    assert not (tmp_path / "redis").exists()


def test_given_address_equal_to_ours_is_ours(run: Run) -> None:
    done = run("pause", "kafka", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:19092")
    assert "it does not run" in done.stderr


def test_given_server_cannot_be_restarted(run: Run) -> None:
    done = run("restart", "redis", REDIS_URL="redis://cache.example:6379/0")
    assert done.returncode == 1
    assert "a server of yours" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "example"),
    [
        ("DATABASE_URL", "sqlite:///var/db.sqlite3", "mysql://"),
        ("REDIS_URL", "localhost:6379", "redis://"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost", "127.0.0.1:19092"),
        ("SMARTFLOW_REDIS_PORT", "none", "SMARTFLOW_REDIS_PORT=16379"),
    ],
)
def test_start_names_a_wrong_variable_and_shows_an_example(run: Run, variable: str, value: str, example: str) -> None:
    done = run("start", **{variable: value})
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert variable in done.stderr
    assert example in done.stderr


def test_start_refuses_a_port_somebody_else_listens_on(
    run: Run, tmp_path: Path, listener: int, fake_programs: str
) -> None:
    done = run("start", "--only", "redis", SMARTFLOW_REDIS_PORT=str(listener), PATH=fake_programs)
    assert done.returncode == 1
    assert f"port {listener} is taken" in done.stderr
    assert "SMARTFLOW_REDIS_PORT" in done.stderr
    assert not (tmp_path / "redis.pid").exists()


def test_start_says_in_one_line_what_this_machine_lacks(run: Run, tmp_path: Path) -> None:
    done = run("start", PATH=str(tmp_path))
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "redis-server" in done.stderr
    assert "apt-get is not here" in done.stderr


def test_install_says_in_one_line_that_promtool_cannot_be_had(run: Run, tmp_path: Path) -> None:
    done = run("install", "--promtool", PATH=str(tmp_path))
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "promtool" in done.stderr


def test_start_shows_the_log_of_a_server_that_ends_at_once(run: Run, fake_programs: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = run("start", "--only", "redis", SMARTFLOW_REDIS_PORT=str(port), PATH=fake_programs)
    assert done.returncode == 1
    assert "no memory for a fake" in done.stderr
    assert "redis: ended before it was ready" in done.stderr.splitlines()[-1]


def test_status_fails_while_something_is_missing(run: Run) -> None:
    done = run("status")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["mariadb", "redis", "kafka"]


@pytest.fixture
def fake_programs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with a redis-server that ends at once."""
    program = tmp_path_factory.mktemp("programs") / "redis-server"
    program.write_text("#!/bin/sh\necho no memory for a fake\nexit 1\n")
    program.chmod(0o755)
    return str(program.parent)
