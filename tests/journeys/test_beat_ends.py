"""The process that starts periodic jobs dies alone: its worker does not go on without it."""

import os
import signal
from pathlib import Path


def test_worker_ends_with_its_beat_so_that_both_are_started_again(stack, alice):
    worker = stack.processes["worker"]
    [beat] = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()

    os.kill(int(beat), signal.SIGKILL)

    worker.wait_gone(10)
    assert "Beat has ended" in worker.log_since_start()
    stack.start("worker")
    alice.chat("Still there?").assert_whole()
    stack.wait_settled(alice, messages=2)
