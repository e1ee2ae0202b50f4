"""Imported by Python itself at the start of every process of the fault suite; changes modules as they are loaded."""

import importlib.abc
import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any


class _Loader(importlib.abc.Loader):
    """Loads a module and changes it before anybody else sees it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for change in CHANGES[module.__name__]:
            change(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are to be changed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


if "FAULTS_FOLDER" in os.environ:
    import faults_injections
    import faults_mutants

    CHANGES = {name: list(changes) for name, changes in faults_injections.CHANGES.items()}
    for name, changes in faults_mutants.chosen().items():
        CHANGES.setdefault(name, []).extend(changes)
    sys.meta_path.insert(0, _Finder())
