"""A few seconds of chat's fault suite on the servers the other tests use; `make faults-chat` runs it on its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.fixtures import HAS_SERVICES
from tests.stack.parts import SERVICE_VARIABLES
from tests.stack.processes import ROOT

pytestmark = [
    pytest.mark.services,
    pytest.mark.stack,
    pytest.mark.skipif(not HAS_SERVICES, reason=f"needs {', '.join(SERVICE_VARIABLES)}: see `make services`"),
]
# Three runs, two of them with executors of their own.
RUNS, FIRST_SEED = 3, 109


def test_overlapping_faults_break_no_promise_to_students():
    command = [sys.executable, "-m", "tests.faults_chat", "--shared", "--runs", str(RUNS), "--seed", str(FIRST_SEED)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    summary = json.loads(Path(done.stdout.splitlines()[0], "summary.json").read_text())
    assert (summary["runs"], summary["violating_runs"]) == (RUNS, 0)
    assert summary["chat_runs"] > 15
    assert len(summary["kinds"]) >= 14
