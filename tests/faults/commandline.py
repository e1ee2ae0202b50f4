"""The command line of a fault suite: one campaign, or one for each way in which the product is broken on purpose."""

import argparse
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.servers import FOLDER, OwnServers, Servers, SharedServers


@dataclass(frozen=True)
class Suite:
    """What tells one suite from another."""

    module: str
    folder: Path
    campaign: Callable[..., Any]
    draw_plan: Callable[..., Any]
    # the shortened times, and the product's own
    short: object
    long: object
    mutants: Collection[str]
    as_json: Callable[[Any], str]
    # what one line tells of an outcome besides its seed and its times
    describe: Callable[[Any], str]


def main(suite: Suite) -> int:
    """Run a campaign, or one for each mutant, and print the figures; 1 when a promise was broken, or a break missed."""
    options = _parse(suite)
    if options.lanes > 1:
        return _run_lanes(suite, options)
    # asked to end, it still ends its servers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = suite.folder / datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    folder.mkdir(parents=True)
    print(folder, flush=True)
    servers = SharedServers(FOLDER) if options.shared else OwnServers(FOLDER)
    servers.open()
    try:
        if options.mutants:
            return _hunt(suite, options, servers, folder)
        summary = _run_campaign(suite, options, servers, folder)
    finally:
        servers.close()
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    return 1 if summary["violating_runs"] else 0


def _run_lanes(suite: Suite, options: argparse.Namespace) -> int:
    """Share the runs, or the mutants, among campaigns beside each other: most of a run is waiting."""
    names = list(suite.mutants) if options.mutants == "all" else options.mutants.split(",")
    share = -(-options.runs // options.lanes) if not options.mutants else options.runs
    lanes = []
    for number in range(options.lanes):
        seed = options.seed + (0 if options.mutants else number * (share or 1_000_000))
        command = [sys.executable, "-m", suite.module, "--runs", str(share), "--seed", str(seed)]
        command += ["--seconds", str(options.seconds), "--mutants", ",".join(names[number :: options.lanes])]
        command += [f"--{name}" for name in ("real", "verbose") if getattr(options, name)]
        lanes.append(subprocess.Popen(command))
    signal.signal(signal.SIGTERM, lambda *_: [lane.terminate() for lane in lanes] and None)
    return max(abs(lane.wait()) for lane in lanes)


def _run_campaign(
    suite: Suite, options: argparse.Namespace, servers: Servers, folder: Path, mutant: str = ""
) -> dict[str, Any]:
    """Run plans until there are enough; return the figures."""
    scale = suite.long if options.real else suite.short
    campaign = suite.campaign(servers, folder, scale=scale, mutant=mutant)
    outcomes: list[Any] = []
    with campaign.installation():
        started = time.monotonic()
        for seed in itertools.islice(itertools.count(options.seed), options.runs or None):
            if options.seconds and time.monotonic() - started > options.seconds:
                break
            outcomes.append(campaign.run(suite.draw_plan(seed=seed, scale=scale, has_servers=servers.has_faults)))
            _tell(suite, outcomes[-1], options)
            with (folder / "runs.jsonl").open("a") as log:
                log.write(suite.as_json(outcomes[-1]) + "\n")
            if outcomes[-1].violations and (mutant or options.stop_at_first):
                break
        seconds = time.monotonic() - started
        summary: dict[str, Any] = campaign.summarise(outcomes, seconds)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def _hunt(suite: Suite, options: argparse.Namespace, servers: Servers, folder: Path) -> int:
    """Break the product in each place and say after how many runs the suite noticed."""
    names = list(suite.mutants) if options.mutants == "all" else options.mutants.split(",")
    found = {}
    for name in names:
        (folder / name).mkdir()
        found[name] = summary = _run_campaign(suite, options, servers, folder / name, mutant=name)
        seen = f"seed {summary['seeds']}, {summary['violations']}" if summary["violating_runs"] else "NOT NOTICED"
        print(f"{name}: {summary['runs']} runs, {summary['seconds']} s: {seen}", flush=True)
    (folder / "mutants.json").write_text(json.dumps(found, indent=1, ensure_ascii=False))
    return 0 if all(summary["violating_runs"] for summary in found.values()) else 1


def _parse(suite: Suite) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {suite.module}")
    parser.add_argument("--runs", type=int, default=20, help="how many runs at most; 0 for no limit")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next run has the next")
    parser.add_argument("--seconds", type=float, default=0, help="begin no run after this")
    parser.add_argument("--lanes", type=int, default=1, help="campaigns beside each other, on servers of their own")
    parser.add_argument("--real", action="store_true", help="the product's own leases, longer runs")
    parser.add_argument("--shared", action="store_true", help="on the servers of the environment, without their faults")
    parser.add_argument("--mutants", default="", help=f"all, or some of {', '.join(suite.mutants)}")
    parser.add_argument("--stop-at-first", action="store_true", help="end with the first broken promise")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    unknown = set(filter(None, options.mutants.split(","))) - {"all", *suite.mutants}
    if unknown:
        parser.error(f"there is no such mutant: {', '.join(sorted(unknown))}; see --help")
    return options


def _tell(suite: Suite, outcome: Any, options: argparse.Namespace) -> None:
    if outcome.violations or options.verbose:
        print(
            f"seed {outcome.seed}: {outcome.seconds} s, settled {outcome.settled_seconds} s, "
            f"{suite.describe(outcome)}, {outcome.kinds} {outcome.problems}",
            flush=True,
        )
    for violation in outcome.violations[:5]:
        print(f"  {violation}", flush=True)
