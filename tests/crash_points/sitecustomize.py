"""Kills the process that imports it at a named point, once, when a test has armed that point.

Imported by Python itself at the start of a child whose PYTHONPATH names this folder; the product knows nothing of it.
A point is armed by a file of its name in CRASH_POINTS_FOLDER; whoever comes by takes the file and dies.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Point:
    """Where to die: before or after a call of `module.function`, the result of which `counts`."""

    module: str
    function: str
    is_after: bool = False
    counts: Callable[[Any], bool] = bool


POINTS = {
    # web: the turn is committed; no hint, no executor, no answer
    "after-append": Point("outbox.wakeup", "_wake"),
    # web: the answer is committed; the reader was not told, nobody was woken
    "after-answer": Point("chat.runs.executor", "remember_turn"),
    # web: the idempotency key is claimed, nothing was written
    "after-key-claim": Point("smartflow.api.idempotency_records", "claim_key", is_after=True),
    # web: the effect and its answer are written, their transaction is open
    "before-key-commit": Point(
        "smartflow.api.idempotency_records", "store_answer", is_after=True, counts=lambda result: True
    ),
    # relay: rows are held, nothing was sent
    "after-claim": Point("outbox.relay", "claim_rows", is_after=True, counts=lambda claim: bool(claim.rows)),
    # relay: the broker has them, the rows do not say so
    "after-publish": Point("outbox.relay", "settle_published"),
    # consumer: the handler has written, its transaction is open
    "before-commit": Point("outbox.dispatch", "_mark_consumed"),
    # consumer: the database has the result, the broker has no offset
    "after-handler": Point(
        "outbox.dispatch", "dispatch_messages", is_after=True, counts=lambda outcomes: "consumed" in outcomes
    ),
}


def _die_if_armed(name: str) -> None:
    try:
        os.unlink(os.path.join(os.environ["CRASH_POINTS_FOLDER"], name))
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _wrap(module: ModuleType, name: str, point: Point) -> None:
    original = getattr(module, point.function)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not point.is_after:
            _die_if_armed(name)
        result = original(*args, **kwargs)
        if point.is_after and point.counts(result):
            _die_if_armed(name)
        return result

    setattr(module, point.function, wrapped)


class _Loader(importlib.abc.Loader):
    """Loads a module and wraps its points before anybody else sees it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for name, point in POINTS.items():
            if point.module == module.__name__:
                _wrap(module, name, point)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have points."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in {point.module for point in POINTS.values()}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


if "CRASH_POINTS_FOLDER" in os.environ:
    sys.meta_path.insert(0, _Finder())
