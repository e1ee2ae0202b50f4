"""Registers the breaks of a suite: what one process changes of which module when FAULTS_MUTANT names it."""

import os
from collections import defaultdict
from collections.abc import Callable
from types import ModuleType
from typing import Any

Change = Callable[[ModuleType], None]
Mutants = dict[str, dict[str, Change]]


def chosen(mutants: Mutants) -> dict[str, list[Change]]:
    """The changes of this process's mutant, by module; none without one. A name nobody knows stops the process."""
    found: defaultdict[str, list[Change]] = defaultdict(list)
    name = os.environ.get("FAULTS_MUTANT", "")
    for module, change in (mutants[name] if name else {}).items():
        found[module].append(change)
    return found


def registrar(mutants: Mutants) -> Callable[[str, str], Callable[[Change], Change]]:
    """Return the decorator `mutant(name, module)` that registers the function below as part of a mutant."""

    def mutant(name: str, module: str) -> Callable[[Change], Change]:
        def register(change: Change) -> Change:
            mutants.setdefault(name, {})[module] = change
            return change

        return register

    return mutant


def replace(owner: Any, name: str, value: Any) -> None:
    """Set what is there already: a name the product gave up must not make a mutant that changes nothing."""
    assert hasattr(owner, name), f"{owner} has no {name}"
    setattr(owner, name, value)
