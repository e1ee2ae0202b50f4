"""`python -m tests.fuzz --seconds 600 --seed 1`: see `make fuzz`. Exit code 1 when the API broke its own schema."""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.running import Bound, fuzz
from tests.stack import Stack
from tests.stack.parts import SERVICE_VARIABLES
from tests.stack.processes import ROOT

SERVICES = [sys.executable, str(ROOT / "scripts" / "services.py")]


def main() -> int:
    """Fuzz for the time that is asked for and print the figures last."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    kind = "services" if _find_services() else "embedded"
    print(f"Fuzzing for {options.seconds} s with seed {options.seed}, {kind}.", flush=True)
    with tempfile.TemporaryDirectory(prefix="smartflow-fuzz-") as name, Stack(kind, Path(name)) as stack:
        bound = Bound(seconds=options.seconds)
        figures = fuzz(stack, Path(name), bound=bound, seed=options.seed, leaving=200)
        if figures.failures or figures.errors:
            print(figures.output)
            print(*_failures_in(stack.processes["web"].log), sep="\n")
    print(f"{kind}, seed {options.seed}: {figures.line}")
    return 1 if figures.failures or figures.errors else 0


def _find_services() -> bool:
    """Tell whether MariaDB, Redis and Kafka run here, and say where in the environment."""
    if all(os.environ.get(name) for name in SERVICE_VARIABLES):
        return True
    if subprocess.run([*SERVICES, "status"], capture_output=True).returncode != 0:
        return False
    told = subprocess.run([*SERVICES, "env"], capture_output=True, text=True, check=True).stdout
    os.environ |= dict(word.split("=", 1) for word in shlex.split(told) if "=" in word)
    return True


def _failures_in(log: Path) -> list[str]:
    """Return what the web process wrote of its own failures."""
    lines = log.read_text(errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if " ERROR " in line]
    return [line for start in starts[:5] for line in lines[start : start + 60]]


if __name__ == "__main__":
    sys.exit(main())
