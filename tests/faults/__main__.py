"""`python -m tests.faults --runs 20 --seed 1`: see `make faults`. Exit code 1 when a promise was broken.

With --mutants the product is broken on purpose, one place after the other, and the exit code is 1 when one of the
breaks goes unnoticed.
"""

import argparse
import itertools
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.campaign import Campaign, Outcome, as_json, summarise
from tests.faults.hooks.faults_mutants import MUTANTS
from tests.faults.plan import LONG, SHORT, draw_plan
from tests.faults.servers import FOLDER, OwnServers, Servers, SharedServers


def main() -> int:
    """Run a campaign, or one for each mutant, and print the figures."""
    options = _parse()
    # asked to end, it still ends its servers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = FOLDER / datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    folder.mkdir(parents=True)
    print(folder, flush=True)
    servers = SharedServers(FOLDER) if options.shared else OwnServers(FOLDER)
    servers.open()
    try:
        if options.mutants:
            return _hunt(options, servers, folder)
        summary = run_campaign(options, servers, folder)
    finally:
        servers.close()
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    return 1 if summary["violating_runs"] else 0


def run_campaign(options: argparse.Namespace, servers: Servers, folder: Path, mutant: str = "") -> dict[str, object]:
    """Run plans until there are enough; return the figures."""
    scale = LONG if options.real else SHORT
    campaign = Campaign(servers, folder, scale=scale, mutant=mutant)
    outcomes: list[Outcome] = []
    with campaign.installation():
        started = time.monotonic()
        for seed in itertools.islice(itertools.count(options.seed), options.runs or None):
            if options.seconds and time.monotonic() - started > options.seconds:
                break
            outcomes.append(campaign.run(draw_plan(seed=seed, scale=scale, has_servers=servers.has_faults)))
            _tell(outcomes[-1], options)
            with (folder / "runs.jsonl").open("a") as log:
                log.write(as_json(outcomes[-1]) + "\n")
            if outcomes[-1].violations and (mutant or options.stop_at_first):
                break
        seconds = time.monotonic() - started
        summary = summarise(outcomes, seconds, campaign.count_messages())
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def _hunt(options: argparse.Namespace, servers: Servers, folder: Path) -> int:
    """Break the product in each place and say after how many runs the suite noticed."""
    names = list(MUTANTS) if options.mutants == "all" else options.mutants.split(",")
    found = {}
    for name in names:
        found[name] = summary = run_campaign(options, servers, folder / name, mutant=name)
        seen = f"seed {summary['seeds']}, {summary['violations']}" if summary["violating_runs"] else "NOT NOTICED"
        print(f"{name}: {summary['runs']} runs, {summary['seconds']} s: {seen}", flush=True)
    (folder / "mutants.json").write_text(json.dumps(found, indent=1, ensure_ascii=False))
    return 0 if all(summary["violating_runs"] for summary in found.values()) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many runs at most; 0 for no limit")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next run has the next")
    parser.add_argument("--seconds", type=float, default=0, help="begin no run after this")
    parser.add_argument("--real", action="store_true", help="the product's own leases, its own commands, longer runs")
    parser.add_argument("--shared", action="store_true", help="on the servers of the environment, without their faults")
    parser.add_argument("--mutants", default="", help=f"all, or some of {', '.join(MUTANTS)}")
    parser.add_argument("--stop-at-first", action="store_true", help="end with the first broken promise")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def _tell(outcome: Outcome, options: argparse.Namespace) -> None:
    if outcome.violations or options.verbose:
        print(
            f"seed {outcome.seed}: {outcome.seconds} s, settled {outcome.settled_seconds} s, {outcome.events} events, "
            f"{outcome.kinds} {outcome.problems}",
            flush=True,
        )
    for violation in outcome.violations[:5]:
        print(f"  {violation}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
