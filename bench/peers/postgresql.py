"""A PostgreSQL for the peers alone: its data in a temporary folder, its port its own, ended with the bench."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import BenchFailed, die_with_parent, wait_until

_USER = "peer"


def programs() -> Path:
    """Return the newest installed server's folder. Raises: BenchFailed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise BenchFailed("there is no PostgreSQL: apt-get install postgresql")
    return found[-1].parent


@contextmanager
def running_postgresql(folder: Path) -> Iterator[dict[str, str]]:
    """Start it with durable commits and give the variables that lead there."""
    account = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    data, port = folder / "data", _free_port()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(folder, account)
    _run(account, "initdb", "-D", str(data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C")
    command = [str(programs() / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    # As much memory for its pages as the MariaDB of the bench has; everything else, durability too, by default.
    command += ["-c", "shared_buffers=256MB"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, user=_user(account), stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        wait_until(_listens(port), seconds=30, what="a listening PostgreSQL")
        _run(account, "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", _USER, "celery")
        _run(account, "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", _USER, "faststream")
        yield {"PEER_PORT": str(port), "PEER_USER": _USER}
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _run(account: str, program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(programs() / program), *arguments], user=_user(account), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFailed(f"{program}: {done.stderr}")


def _user(account: str) -> int | None:
    """The server refuses to be root."""
    return pwd.getpwnam(account).pw_uid if os.geteuid() == 0 else None


def _listens(port: int) -> Callable[[], bool]:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return listens


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
