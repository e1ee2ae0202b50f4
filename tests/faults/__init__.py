"""The fault suite: real processes on real servers, many faults at once, and a checker that reads the end state.

`make faults RUNS=n SEED=s` runs it. plan.py draws a run from its seed, injector.py carries the faults out, writer.py
writes the history, checker.py judges the end. hooks/ is what the product's processes import beside the product; the
product knows nothing of it.
"""

import sys
from pathlib import Path

# What the product's processes find there by their PYTHONPATH.
sys.path.append(str(Path(__file__).parent / "hooks"))
