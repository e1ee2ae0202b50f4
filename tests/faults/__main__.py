"""`python -m tests.faults --runs 20 --seed 1`: see `make faults`. Exit code 1 when a promise was broken."""

import argparse
import json
import sys
import time
from datetime import UTC, datetime

from tests.faults.campaign import Campaign, Outcome, as_json, summarise
from tests.faults.plan import draw_plan
from tests.faults.servers import FOLDER, OwnServers, SharedServers


def main() -> int:
    """Run a campaign and print its figures."""
    options = _parse()
    folder = FOLDER / datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    folder.mkdir(parents=True)
    servers = SharedServers(FOLDER) if options.shared else OwnServers(FOLDER)
    servers.open()
    outcomes: list[Outcome] = []
    started = time.monotonic()
    messages = 0
    try:
        campaign = Campaign(servers, folder, mutant=options.mutant)
        with campaign.installation():
            print(f"ready after {time.monotonic() - started:.1f} s, {folder}", flush=True)
            started = time.monotonic()
            for number in range(options.runs):
                if options.seconds and time.monotonic() - started > options.seconds:
                    break
                plan = draw_plan(seed=options.seed + number, events=options.events, has_servers=servers.has_faults)
                outcomes.append(campaign.run(plan))
                _tell(outcomes[-1], options)
                with (folder / "runs.jsonl").open("a") as log:
                    log.write(as_json(outcomes[-1]) + "\n")
                if outcomes[-1].violations and options.stop_at_first:
                    break
            messages = campaign.count_messages()
    finally:
        servers.close()
    summary = summarise(outcomes, time.monotonic() - started, messages)
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    (folder / "summary.json").write_text(text)
    print(text)
    return 1 if summary["violating_runs"] else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many runs at most")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next run has the next")
    parser.add_argument("--seconds", type=float, default=0, help="begin no run after this")
    parser.add_argument("--events", type=int, default=240, help="how many a run writes")
    parser.add_argument("--shared", action="store_true", help="on the servers of the environment, without their faults")
    parser.add_argument("--mutant", default="", help="break the product in this place")
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
