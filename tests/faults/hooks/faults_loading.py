"""Changes modules as they are loaded, before anybody else sees them."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

Changes = dict[str, list[Callable[[ModuleType], None]]]
_changes: Changes = {}


class _Loader(importlib.abc.Loader):
    """Loads a module and changes it before anybody else sees it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for change in _changes[module.__name__]:
            change(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are to be changed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in _changes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install(*sources: Mapping[str, list[Callable[[ModuleType], None]]]) -> None:
    """From now on carry out these changes, by module; of one module in the order of the sources."""
    for source in sources:
        for name, changes in source.items():
            _changes.setdefault(name, []).extend(changes)
    sys.meta_path.insert(0, _Finder())
