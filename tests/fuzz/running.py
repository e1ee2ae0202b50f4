"""Runs the fuzzer against a started stack and returns its figures."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack import Person, Stack
from tests.stack.person import PASSWORD
from tests.stack.processes import ROOT

SCHEMA = ROOT / "docs" / "openapi.yaml"
# Left out: `positive_data_acceptance`. A schema cannot say that one date lies before another, that a key was used for
# another request, or which passwords are too common; all of these are refused with a documented code.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
)
# A run of a few requests for each operation is over in seconds; a busy machine is given minutes.
PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Figures:
    """What came of one run."""

    requests: int
    operations: int
    covered: int
    failures: tuple[str, ...]
    errors: tuple[str, ...]
    seconds: float
    output: str

    @property
    def line(self) -> str:
        """The figures in one line."""
        return (
            f"{self.requests} requests, {self.covered} of {self.operations} operations, "
            f"{len(self.failures)} failures, {len(self.errors)} errors in {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Bound:
    """When a run ends: after so many seconds, or after so many requests of each kind for each operation."""

    seconds: int = 0
    examples: int = 0

    @property
    def arguments(self) -> tuple[str, ...]:
        if self.seconds:
            return ("--max-time", str(self.seconds))
        return ("--max-examples", str(self.examples), "--phases", "examples,fuzzing,stateful")


def fuzz(stack: Stack, folder: Path, *, bound: Bound, seed: int, leaving: int) -> Figures:
    """Let the fuzzer ask a stack; `leaving` people are there to be signed out."""
    asking = stack.sign_up(f"fuzzer-{seed}-{os.getpid()}")
    people = folder / "people.json"
    people.write_text(json.dumps(_people(asking, [stack.invite() for _number in range(leaving)])))
    report = folder / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(SCHEMA), "--url", stack.base_url),
            *("--checks", ",".join(CHECKS), "--seed", str(seed), *bound.arguments),
            *("--generation-database", "none", "--request-timeout", "30", "--no-color"),
            *("--report", "json", "--report-json-path", str(report), "--warnings", "off"),
        ],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            "FUZZ_PEOPLE": str(people),
            "FUZZ_SEED": str(seed),
        },
        capture_output=True,
        text=True,
        timeout=bound.seconds + PATIENCE_SECONDS,
    )
    if not report.exists():
        raise AssertionError(f"The fuzzer did not come to its report:\n{done.stdout}\n{done.stderr}")
    return _figures(json.loads(report.read_text()), done.stdout)


def _people(asking: Person, leaving: list[Person]) -> dict[str, Any]:
    tokens = [{"token": person.token, "refresh_token": person.refresh_token} for person in (asking, *leaving)]
    credentials = {"username": asking.username, "password": PASSWORD}
    return {"credentials": credentials, "asking": tokens[0], "leaving": tokens[1:]}


def _figures(report: dict[str, Any], output: str) -> Figures:
    return Figures(
        requests=report["test_cases"]["generated"],
        operations=report["operations"]["total"],
        covered=report["operations"]["tested"],
        failures=tuple(f"{found['title']}: {', '.join(found['operations'])}" for found in report["failures"]),
        errors=tuple(str(error) for error in report["errors"]),
        seconds=report["running_time"],
        output=output,
    )
