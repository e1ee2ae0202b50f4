"""Measures the peers on the same machine as the outbox: their rate from a backlog, and commit → sent or handled."""

import json
import shutil
import subprocess
import time
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import medians, spread
from bench.peers.postgresql import programs, running_postgresql
from bench.processes import ROOT, BenchFailed, Process, wait_until

FOLDER = ROOT / "var" / "bench" / "peers"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
INSTALL_SECONDS = 300
PAYLOAD_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One project; `tuned` is what its own documentation names for more throughput."""

    name: str
    script: str
    database: str
    table: str
    tuned: Mapping[str, object]


PEERS = (
    Peer(
        name="django-celery-outbox",
        script="django_celery_outbox_peer.py",
        database="celery",
        table="celery_outbox",
        tuned={"batch_size": 500, "idle_time": 0.05, "publish_concurrency": 4},
    ),
    Peer(
        name="faststream-outbox",
        script="faststream_outbox_peer.py",
        database="faststream",
        table="outbox",
        tuned={
            "max_workers": 4,
            "fetch_batch_size": 500,
            "terminal_flush_batch_size": 100,
            "min_fetch_interval": 0.05,
        },
    ),
)


@dataclass(frozen=True, kw_only=True)
class PeerEffort:
    """How much is asked in one run."""

    rows: int
    rate: int
    seconds: int


class PeerBench:
    """Runs both peers on a PostgreSQL that lives as long as the bench."""

    def __init__(self, variables: Mapping[str, str], folder: Path, python: str) -> None:
        self._variables = {**variables, "PATH": "/usr/bin:/bin", "PEER_BYTES": str(PAYLOAD_BYTES)}
        self._folder = folder
        self._python = python

    def measure(self, peer: Peer, options: Mapping[str, object], effort: PeerEffort) -> dict[str, float | None]:
        """Return one run's figures."""
        self._run(peer, "backlog", "--count", str(effort.rows))
        relay = self._start_relay(peer, options)
        try:
            moments = self._finish(peer, relay)
            figures: dict[str, float | None] = {
                "rows_per_second": round((len(moments) - 1) / (max(moments.values()) - min(moments.values())))
            }
        finally:
            relay.stop()
        relay = self._start_relay(peer, options)
        try:
            steady = ("steady", "--rate", str(effort.rate), "--seconds", str(effort.seconds))
            commits = json.loads(self._run(peer, *steady).splitlines()[-1])
            moments = self._finish(peer, relay)
        finally:
            relay.stop()
        waits = [moments[key] - moment for key, moment in commits.items()]
        return figures | {f"{name}_ms": value for name, value in spread(waits, 0.5, 0.99).items()}

    def create(self, peer: Peer) -> None:
        """Make the peer's tables."""
        self._run(peer, "migrate")

    def _start_relay(self, peer: Peer, options: Mapping[str, object]) -> Process:
        relay = self._spawn(peer, "relay", "--options", json.dumps(dict(options)))
        relay.wait_said("ready")
        return relay

    def _finish(self, peer: Peer, relay: Process) -> dict[str, float]:
        """Wait until the peer's table is empty, end its relay and return what it noted."""

        def is_empty() -> bool:
            relay.check_alive()
            return self._count(peer) == 0

        wait_until(is_empty, seconds=90, what=f"an empty table of {peer.name}", every=0.2)
        relay.end()
        return json.loads(relay.wait_done(seconds=60).splitlines()[-1])

    def _count(self, peer: Peer) -> int:
        port, user = self._variables["PEER_PORT"], self._variables["PEER_USER"]
        query = f"SELECT COUNT(*) FROM {peer.table}"
        command = [programs() / "psql", "-h", "127.0.0.1", "-p", port, "-U", user, "-tAc", query, peer.database]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def _run(self, peer: Peer, *arguments: str) -> str:
        process = self._spawn(peer, *arguments)
        try:
            return process.wait_done(seconds=120)
        finally:
            process.stop()

    def _spawn(self, peer: Peer, *arguments: str) -> Process:
        script = str(Path(__file__).with_name(peer.script))
        environment = {**self._variables, "PEER_DATABASE": peer.database}
        log = self._folder / f"{peer.name}-{arguments[0]}.log"
        return Process(f"{peer.name} {arguments[0]}", [script, *arguments], environment, log, python=self._python)


def installed() -> str:
    """Return the peers' own Python, with their packages. Raises: BenchFailed."""
    python = FOLDER / "venv" / "bin" / "python"
    stamp = FOLDER / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        shutil.rmtree(FOLDER / "venv", ignore_errors=True)
        venv.create(FOLDER / "venv", with_pip=True, symlinks=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        if done.returncode:
            raise BenchFailed(f"the peers cannot be installed here: {done.stderr[-500:]}")
        shutil.copy(REQUIREMENTS, stamp)
    return str(python)


def measure_peers(*, redis_url: str, runs: int, effort: PeerEffort, may_go_on: Callable[[], bool]) -> dict[str, Any]:
    """Return the medians over the runs of each peer, by its defaults and tuned."""
    python = installed()
    by_run: dict[str, list[dict[str, float | None]]] = {}
    with running_postgresql(FOLDER / "postgresql") as variables:
        bench = PeerBench({**variables, "PEER_REDIS": redis_url}, FOLDER, python)
        for peer in PEERS:
            bench.create(peer)
        for _ in range(runs):
            for peer in PEERS:
                for kind, options in (("defaults", {}), ("tuned", peer.tuned)):
                    started = time.monotonic()
                    found = bench.measure(peer, options, effort)
                    by_run.setdefault(f"{peer.name}, {kind}", []).append(found)
                    print(f"  {time.monotonic() - started:4.0f} s  {peer.name}, {kind}: {found}", flush=True)
            if not may_go_on():
                break
    figures = {name: {"runs": len(found), **medians(found)} for name, found in by_run.items()}
    return {"effort": {"rows": effort.rows, "rate": effort.rate, "seconds": effort.seconds}, "figures": figures}
