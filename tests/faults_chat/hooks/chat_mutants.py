"""The product's chat, broken on purpose in one place, to see whether the suite notices. FAULTS_MUTANT names it."""

import os
from collections import defaultdict
from collections.abc import Callable
from types import ModuleType

Change = Callable[[ModuleType], None]
MUTANTS: dict[str, dict[str, Change]] = {}


def chosen() -> dict[str, list[Change]]:
    """The changes of this process's mutant, by module; none without one. A name nobody knows stops the process."""
    found: defaultdict[str, list[Change]] = defaultdict(list)
    name = os.environ.get("FAULTS_MUTANT", "")
    for module, change in (MUTANTS[name] if name else {}).items():
        found[module].append(change)
    return found
