"""`python -m bench [chat] [api] [first-token] [outbox] [peers] [long] [profile]`: measure and write results.json.

Ends only what it started, also when it is interrupted, and stops by itself when its time is up.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from bench import first_token, long_drain, outbox, readme, report
from bench.api.measure import ApiBench
from bench.api.measure import Effort as ApiEffort
from bench.api.report import show_api
from bench.chat.plan import QUICK as CHAT_QUICK_EFFORT
from bench.chat.plan import ChatBench
from bench.chat.plan import Effort as ChatEffort
from bench.chat.report import show_chat
from bench.figures import Load
from bench.installation import Installation
from bench.peers.measure import PeerEffort, measure_peers
from bench.processes import ROOT, BenchFailed
from bench.servers import Corner, ServersAbsent, running_servers
from bench.table import utc_text

RESULTS = ROOT / "bench" / "results.json"
QUICK_RESULTS = ROOT / "var" / "bench" / "results-quick.json"
PARTS = ("chat", "api", "first-token", "outbox", "peers", "long", "profile")
DEFAULT_PARTS = ("chat", "first-token", "outbox")
EFFORT = outbox.Effort(relay_rows=20_000, consumer_seconds=5, steady_seconds=5)
QUICK_EFFORT = outbox.Effort(relay_rows=2000, consumer_seconds=1, steady_seconds=1)
PROFILE_EFFORT = outbox.Effort(relay_rows=3000, consumer_seconds=5, steady_seconds=0)
CHAT_EFFORT = ChatEffort()
PEER_EFFORT = PeerEffort(rows=4000, rate=outbox.RATE, seconds=3)
QUICK_PEER_EFFORT = PeerEffort(rows=500, rate=100, seconds=1)
# Enough for every part but the long one and the chat, which have their own.
SECONDS, QUICK_SECONDS, LONG_SECONDS, CHAT_SECONDS = 600, 150, 720, 600
SERVICES = "MariaDB, Redis, Kafka"


class TimeUp(Exception):
    """The bench took longer than it may."""


class Timer:
    """Gives each part its share of the whole time, and ends everything when that is up."""

    def __init__(self, seconds: int) -> None:
        self._deadline = time.monotonic() + seconds
        signal.signal(signal.SIGALRM, self._end)
        signal.signal(signal.SIGTERM, self._end)
        signal.alarm(seconds)

    @staticmethod
    def _end(*_: object) -> None:
        raise TimeUp

    def until(self, reserve_seconds: float) -> Callable[[], bool]:
        """Return a question: is there time for another run as long as the longest so far, and the reserve after it?"""
        last = time.monotonic()
        longest = 0.0

        def may_go_on() -> bool:
            nonlocal last, longest
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            return last + longest + reserve_seconds < self._deadline

        return may_go_on


class Bench:
    """One call of the command."""

    def __init__(self, options: argparse.Namespace, timer: Timer) -> None:
        self._options = options
        self._timer = timer
        self._load_before = os.getloadavg()[0]
        self._exits = ExitStack()
        self.results: dict[str, Any] = {}

    def run(self) -> None:
        """Measure every chosen part; what was measured before a failure stays in `results`."""
        with self._exits:
            folder = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="smartflow-bench-")))
            if "first-token" in self._options.parts:
                self._measure_embedded(folder / "embedded")
            if "chat" in self._options.parts:
                self._measure_chat()
            if set(self._options.parts) - {"chat"}:
                self._measure_on_services(folder / "services")

    def _measure_chat(self) -> None:
        self._say("chat ...")
        quick = self._options.quick
        bench = ChatBench(
            runs=self._options.runs,
            effort=CHAT_QUICK_EFFORT if quick else CHAT_EFFORT,
            may_go_on=self._timer.until(10),
            load=Load(self._load_before),
        )
        try:
            bench.measure()
        finally:
            found = bench.found()
            if found["single_runs"]:
                self.results["chat"] = {"measured": utc_text(), **found}
                self._say(show_chat(found), report.show_load(found["load"]))

    def _measure_embedded(self, folder: Path) -> None:
        folder.mkdir()
        with first_token.running_scripted_model() as model:
            installation = Installation(folder, first_token.model_variables(model.base_url))
            with closing(installation):
                self._measure_first_token("embedded", installation, model.base_url)

    def _measure_on_services(self, folder: Path) -> None:
        folder.mkdir()
        variables = self._exits.enter_context(running_servers())
        corner = self._exits.enter_context(closing(Corner(variables)))
        model = self._exits.enter_context(first_token.running_scripted_model())
        environment = {**first_token.model_variables(model.base_url), **corner.environment()}
        installation = self._exits.enter_context(closing(Installation(folder, environment)))
        if "first-token" in self._options.parts:
            self._measure_first_token(SERVICES, installation, model.base_url)
        if "api" in self._options.parts:
            self._measure_api(installation, corner)
        if "outbox" in self._options.parts:
            self._measure_outbox(installation, corner)
        if "peers" in self._options.parts:
            self._measure_peers(corner)
        if "long" in self._options.parts:
            self._measure_long(folder / "long", variables)
        if "profile" in self._options.parts:
            self._say(*outbox.OutboxBench(installation, corner, PROFILE_EFFORT).profile())

    def _measure_api(self, installation: Installation, corner: Corner) -> None:
        self._say("api ...")
        quick, load = self._options.quick, Load(self._load_before)
        effort = ApiEffort(rounds=1, share=0.2) if quick else ApiEffort(rounds=3 * self._options.runs)
        with ExitStack() as exits:
            bench = ApiBench(installation, corner, effort, exits)
            try:
                bench.measure(may_go_on=self._timer.until(30), load=load)
            finally:
                found = {"measured": utc_text(), "views": bench.views, "load": load.report()}
                if bench.views:
                    self.results["api"] = found
                    self._say(show_api(found), report.show_load(found["load"]))

    def _measure_peers(self, corner: Corner) -> None:
        self._say("peers ...")
        load = Load(self._load_before)
        found = measure_peers(
            redis_url=corner.environment()["CELERY_BROKER_URL"],
            runs=self._options.runs,
            effort=QUICK_PEER_EFFORT if self._options.quick else PEER_EFFORT,
            may_go_on=self._timer.until(10),
        )
        self.results["peers"] = {"measured": utc_text(), **found, "load": load.report()}
        self._say(report.show_peers(found), report.show_load(load.report()))

    def _measure_long(self, folder: Path, variables: dict[str, str]) -> None:
        self._say("long ...")
        found = long_drain.measure(folder, variables, is_quick=self._options.quick, load=Load(self._load_before))
        self.results["long"] = {"measured": utc_text(), **found}
        self._say(report.show_long(found), report.show_load(found["load"]))

    def _measure_first_token(self, name: str, installation: Installation, model_url: str) -> None:
        self._say(f"first token, {name} ...")
        quick = self._options.quick
        installation.start("web", "worker", "consumer")
        found = first_token.measure(
            installation,
            runs=self._options.runs,
            effort=first_token.Effort(users=2 if quick else 5, single=10 if quick else 30, bursts=1 if quick else 3),
            may_go_on=self._timer.until(self._reserve_seconds()),
            model_url=model_url,
            load=Load(self._load_before),
        )
        installation.stop("web", "worker", "consumer")
        self.results.setdefault("first_token", {})[name] = {"measured": utc_text(), **found}
        self._say(report.show_first_token({name: found}), report.show_load(found["load"]))

    def _reserve_seconds(self) -> float:
        """Return what has to be left for the outbox when another run of the first token is begun."""
        if "outbox" not in self._options.parts:
            return 5
        return 60 if self._options.quick else 400

    def _measure_outbox(self, installation: Installation, corner: Corner) -> None:
        self._say("outbox ...")
        quick = self._options.quick
        effort = QUICK_EFFORT if quick else EFFORT
        found = outbox.OutboxBench(installation, corner, effort).measure(
            runs=self._options.runs,
            may_go_on=self._timer.until(150 if "peers" in self._options.parts else 10),
            load=Load(self._load_before),
        )
        self.results["outbox"] = {"measured": utc_text(), **found}
        self._say(report.show_outbox(found), report.show_load(found["load"]))

    def _say(self, *lines: str) -> None:
        print(*lines, sep="\n\n", end="\n\n", flush=True)


def code() -> str:
    """Return the commit that was measured, marked where files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def machine() -> dict[str, object]:
    """Return what the figures were measured on."""
    return {
        "code": code(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


def write(results: dict[str, Any], path: Path, command: str) -> None:
    """Write the parts that were measured over the same parts of an earlier call; other parts stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    parts = {name: {"command": command, "machine": machine(), "found": found} for name, found in results.items()}
    path.write_text(json.dumps({**before, **parts}, indent=2, ensure_ascii=False) + "\n")


def _seconds(options: argparse.Namespace) -> int:
    seconds = QUICK_SECONDS if options.quick else SECONDS
    own = {"long": LONG_SECONDS, "chat": CHAT_SECONDS}
    others = seconds if set(options.parts) - set(own) else 0
    return others + sum(own[name] for name in own if name in options.parts)


def main() -> int:
    """Return 0 when every chosen part was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="|".join(PARTS), help=f"{' and '.join(DEFAULT_PARTS)} when none is named"
    )
    parser.add_argument("--runs", type=int, help="medians are over so many (3)")
    parser.add_argument("--quick", action="store_true", help="one short run, to see that it works; kept apart")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    options.parts = options.parts or list(DEFAULT_PARTS)
    options.runs = options.runs or (1 if options.quick else 3)
    bench = Bench(options, Timer(_seconds(options)))
    started, code = time.monotonic(), 1
    try:
        bench.run()
        code = 0
    except TimeUp:
        print("The time is up; what was measured until now is kept.", file=sys.stderr)
    except (BenchFailed, ServersAbsent, KafkaException) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        code = 130
    if bench.results:
        path = QUICK_RESULTS if options.quick else RESULTS
        write(bench.results, path, " ".join(["python -m bench", *sys.argv[1:]]))
        if not options.quick:
            readme.update()
        print(f"{time.monotonic() - started:.0f} s; written to {path.relative_to(ROOT)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
