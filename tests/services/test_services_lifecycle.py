"""scripts/services.py with a real Redis of its own, beside the servers the other tests use."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

pytestmark = pytest.mark.services

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "services.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def run(tmp_path: Path, port: int) -> Iterator[Run]:
    clean = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    environment = {**clean, "SMARTFLOW_SERVICES_DIR": str(tmp_path), "SMARTFLOW_REDIS_PORT": str(port)}

    def run_script(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), *arguments],
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    yield run_script
    run_script("stop", "--only", "redis")


@pytest.fixture
def client(port: int) -> Iterator[redis.Redis]:
    with redis.Redis(host="127.0.0.1", port=port, socket_timeout=1, retry=None) as client:
        yield client


def test_start_is_ready_when_it_returns_and_says_so_the_second_time(
    run: Run, client: redis.Redis, tmp_path: Path
) -> None:
    first = run("start", "--only", "redis", "--started-file", str(tmp_path / "started"))
    assert first.returncode == 0, first.stderr
    assert client.ping()
    assert (tmp_path / "started").read_text() == "redis"
    second = run("start", "--only", "redis", "--started-file", str(tmp_path / "started"))
    assert "already running" in second.stdout
    assert (tmp_path / "started").read_text() == ""


def test_start_takes_a_given_server_that_answers(run: Run, port: int, tmp_path: Path) -> None:
    run("start", "--only", "redis")
    elsewhere = tmp_path / "elsewhere"
    done = run(
        "start",
        "--only",
        "redis",
        REDIS_URL=f"redis://127.0.0.1:{port}/0",
        SMARTFLOW_REDIS_PORT="1",
        SMARTFLOW_SERVICES_DIR=str(elsewhere),
    )
    assert done.returncode == 0
    assert "given by REDIS_URL, answers" in done.stdout
    assert not (elsewhere / "redis").exists()


def test_pause_silences_and_resume_brings_back(run: Run, client: redis.Redis) -> None:
    run("start", "--only", "redis")
    client.set("kept", "yes")
    run("pause", "redis")
    assert "paused" in run("status", "--only", "redis").stdout
    with pytest.raises(redis.TimeoutError):
        client.get("kept")
    assert run("resume", "redis").returncode == 0
    assert client.get("kept") == b"yes"


def test_start_resumes_a_paused_server(run: Run, client: redis.Redis) -> None:
    run("start", "--only", "redis")
    run("pause", "redis")
    assert run("start", "--only", "redis").returncode == 0
    assert client.ping()


def test_stop_ends_a_paused_server(run: Run) -> None:
    run("start", "--only", "redis")
    run("pause", "redis")
    assert "stopped" in run("stop", "--only", "redis").stdout
    assert run("status", "--only", "redis").returncode == 1


def test_kill_then_start_gives_a_fresh_server(run: Run, client: redis.Redis) -> None:
    run("start", "--only", "redis")
    client.set("lost", "yes")
    assert run("kill", "redis").returncode == 0
    assert run("start", "--only", "redis").returncode == 0
    client.connection_pool.disconnect()
    assert client.get("lost") is None


def test_restart_changes_the_process(run: Run, client: redis.Redis) -> None:
    run("start", "--only", "redis")
    before = client.info("server")["process_id"]
    assert run("restart", "redis").returncode == 0
    client.connection_pool.disconnect()
    assert client.info("server")["process_id"] != before
