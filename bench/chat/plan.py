"""What is measured, in which order, and how much of it: the product and its raw comparison in turns.

First memory, where it does not matter that several processes work at once; then everything that is timed, alone.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.chat.stage import Server, Stage, raise_file_limit
from bench.figures import Load, medians
from bench.processes import BenchFailed
from bench.servers import Corner, running_servers

PARTS = ("memory", "idle", "first_tokens", "gaps", "throughput", "one_log", "visits")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done in one run."""

    tails: int = 10_000
    hold_seconds: float = 10
    memory_runs: int = 10_000
    memory_step: int = 1000
    gap_tokens: int = 120
    throughput_tokens: int = 80
    log_tails: int = 2000
    log_tokens: int = 50
    single: int = 15
    bursts: int = 2
    steady_seconds: float = 6
    visited: int = 30


QUICK = Effort(
    tails=1000,
    hold_seconds=6,
    memory_runs=400,
    memory_step=40,
    gap_tokens=110,
    throughput_tokens=60,
    log_tails=400,
    log_tokens=20,
    single=5,
    bursts=1,
    steady_seconds=5,
    visited=15,
)
RUNS_AT_ONCE = 300
TOKENS_PER_SECOND = 10
# More than either side can pass on: the model offers 300 / 0.012 = 25,000 tokens a second.
SATURATING_DELAY_MS = 12
USERS = 300
_MODEL_GAP_TOKENS = 60


class ChatBench:
    """One call of the bench's part `chat`."""

    def __init__(self, *, runs: int, effort: Effort, may_go_on: Callable[[], bool], load: Load) -> None:
        self._runs = runs
        self._effort = effort
        self._may_go_on = may_go_on
        self._load = load
        self._found: dict[str, list[dict[str, Any]]] = {}
        self._failures: list[str] = []
        self._stage: Stage
        self._model: Server

    def measure(self, parts: tuple[str, ...] = PARTS) -> None:
        """Measure; what the time does not suffice for is left out."""
        raise_file_limit()
        with ExitStack() as exits:
            folder = exits.enter_context(_kept_when_failed())
            corner = exits.enter_context(closing(Corner(exits.enter_context(running_servers()))))
            self._stage = Stage(corner, folder, users=USERS)
            self._model = exits.enter_context(self._stage.model())
            if {"memory", "idle"} & set(parts):
                self._measure_memory(parts)
            for _ in range(self._runs):
                self._measure_times(parts)
                self._load.look()
                if not self._may_go_on():
                    break
            if self._failures:
                raise BenchFailed("\n".join(["some figures failed:", *self._failures]))

    def found(self) -> dict[str, Any]:
        """Return every run's figures until now, and their medians."""
        return {
            "runs": {name: len(found) for name, found in self._found.items()},
            "figures": {name: medians(found) for name, found in self._found.items() if name not in _SERIES},
            "single_runs": self._found,
            "failures": self._failures,
            "load": self._load.report(),
        }

    def _attempt(self, step: Callable[..., None], *servers: Server) -> None:
        """Measure something; what fails has no figure, and the others go on."""
        try:
            step(*servers)
        except BenchFailed as error:
            print(f"  FAILED {error}", flush=True)
            self._failures.append(str(error).splitlines()[1 if "\n" in str(error) else 0])

    def _add(self, name: str, figures: dict[str, Any]) -> None:
        self._found.setdefault(name, []).append(figures)
        print(f"  {name}: {figures}", flush=True)

    def _measure_memory(self, parts: tuple[str, ...]) -> None:
        """Answer run after run in one process, while others fill up with idle readers."""
        effort, stage = self._effort, self._stage
        with ExitStack() as exits:
            home = exits.enter_context(stage.web(self._model))
            series = {}
            if "memory" in parts:
                for name, open_server in (("memory", stage.web), ("memory_raw", stage.floor)):
                    server = exits.enter_context(open_server(self._model))
                    series[name] = exits.enter_context(
                        stage.measuring(
                            "memory",
                            server,
                            runs=effort.memory_runs,
                            step=effort.memory_step,
                            concurrent=20,
                            pid=server.pid,
                            tokens=5,
                        )
                    )
            for _ in range(self._runs if "idle" in parts else 0):
                self._attempt(self._measure_idle, home)
            for name, figures in series.items():
                self._add(name, figures())

    def _measure_idle(self, home: Server) -> None:
        for name, open_server in (("idle", self._stage.web), ("idle_raw", self._stage.floor)):
            with open_server(self._model) as server:
                figures = self._stage.measure(
                    "idle",
                    server,
                    tails=self._effort.tails,
                    live_runs=100,
                    home_port=home.port,
                    hold_seconds=self._effort.hold_seconds if name == "idle" else 6,
                    pid=server.pid,
                    database_port=self._stage.database_port,
                )
            self._add(name, figures)

    def _measure_times(self, parts: tuple[str, ...]) -> None:
        """Do one run of everything that is timed."""
        steps: dict[str, Callable[[Server, Server], None]] = {
            "first_tokens": self._measure_first_tokens,
            "gaps": self._measure_gaps,
            "throughput": self._measure_throughput,
            "one_log": self._measure_one_log,
        }
        with ExitStack() as exits:
            web = exits.enter_context(self._stage.web(self._model))
            floor = exits.enter_context(self._stage.floor(self._model))
            for name, step in steps.items():
                if name in parts:
                    self._attempt(step, web, floor)
            if "visits" in parts:
                other = exits.enter_context(self._stage.web(self._model))
                self._attempt(self._measure_visits, web, other, floor)
            for server in (web, floor):
                server.process.check_alive()

    def _measure_first_tokens(self, web: Server, floor: Server) -> None:
        effort = self._effort
        for name, server in (("first_tokens_raw", floor), ("first_tokens", web)):
            figures = self._stage.measure(
                "first_tokens",
                server,
                single=effort.single,
                burst=50,
                bursts=effort.bursts,
                steady_seconds=effort.steady_seconds,
            )
            self._add(name, figures)

    def _measure_gaps(self, web: Server, _floor: Server) -> None:
        for name, server in (("gaps_raw", self._model), ("gaps", web)):
            figures = self._stage.measure(
                "gaps",
                server,
                runs=RUNS_AT_ONCE,
                per_second=TOKENS_PER_SECOND,
                tokens=self._effort.gap_tokens if name == "gaps" else _MODEL_GAP_TOKENS,
                ramp_seconds=6 if name == "gaps" else 2,
                pid=server.pid,
            )
            self._add(name, figures)

    def _measure_throughput(self, web: Server, floor: Server) -> None:
        """Measure the model alone first: it must not be what limits the others."""
        sides = (
            ("throughput_model", self._model, "", 1),
            ("throughput_raw", floor, "relay", SATURATING_DELAY_MS),
            ("throughput_bytes", floor, "bytes", SATURATING_DELAY_MS),
            ("throughput", web, "", SATURATING_DELAY_MS),
        )
        for name, server, kind, delay_ms in sides:
            figures = self._stage.measure(
                "throughput",
                server,
                kind=kind,
                runs=RUNS_AT_ONCE,
                tokens=self._effort.throughput_tokens,
                delay_ms=delay_ms,
                upstream_port=self._model.port,
                pid=server.pid,
            )
            self._add(name, figures)

    def _measure_one_log(self, web: Server, floor: Server) -> None:
        for name, server, gate in (("one_log_raw", floor, floor), ("one_log", web, self._model)):
            figures = self._stage.measure(
                "one_log",
                server,
                tails=self._effort.log_tails,
                tokens=self._effort.log_tokens,
                warm_tokens=5,
                gate_port=gate.port,
                pid=server.pid,
            )
            self._add(name, figures)

    def _measure_visits(self, web: Server, other: Server, floor: Server) -> None:
        """Stop and resume runs of `web`, through itself and through another process."""
        runs = self._effort.visited
        for name, server, through in (("raw", floor, floor), ("own", web, web), ("other", web, other)):
            stop = self._stage.measure(
                "stop", server, runs=runs, stop_port=through.port, upstream_port=self._model.port
            )
            resume = self._stage.measure(
                "resume", server, runs=runs, visits=3, resume_port=through.port, gate_port=through.port
            )
            self._add(f"stop_{name}", stop)
            self._add(f"resume_{name}", resume)


_SERIES = ("memory", "memory_raw")


@contextmanager
def _kept_when_failed() -> Iterator[Path]:
    """Give a folder for logs; after a failure it stays, and says where it is."""
    folder = Path(tempfile.mkdtemp(prefix="smartflow-bench-chat-"))
    try:
        yield folder
    except BenchFailed:
        print(f"the logs are in {folder}", flush=True)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
