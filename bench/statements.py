"""Reads how many statements the product's processes have sent: exact, whoever else is on the server."""

import struct
from collections import Counter
from pathlib import Path

from bench.processes import ROOT

COUNTING = ROOT / "bench" / "counting"
KINDS = ("select", "insert", "update", "delete", "other")
_LAYOUT = f"{len(KINDS)}q"


class Statements:
    """The counts of one installation, by process name and kind. `other` is begin, commit, savepoint and settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "statements"
        self._folder.mkdir()
        self._before: Counter[tuple[str, str]] = Counter()

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables that make a process count."""
        return {
            "PYTHONPATH": str(COUNTING),
            "BENCH_COUNT_FOLDER": str(self._folder),
            "BENCH_COUNT_NAME": name,
        }

    def begin(self) -> None:
        """Count from here."""
        self._before = self._now()

    def since(self, name: str) -> Counter[str]:
        """Return what the processes of this name, and `name 2` and so on, sent since begin(), by kind."""
        found: Counter[str] = Counter()
        for (process, kind), count in (self._now() - self._before).items():
            if process.split(" ")[0] == name:
                found[kind] += count
        return found

    def _now(self) -> Counter[tuple[str, str]]:
        counts: Counter[tuple[str, str]] = Counter()
        for path in self._folder.iterdir():
            content = path.read_bytes()
            if len(content) == struct.calcsize(_LAYOUT):
                numbers = zip(KINDS, struct.unpack(_LAYOUT, content), strict=True)
                counts.update({(path.name.rsplit(".", 1)[0], kind): number for kind, number in numbers})
        return counts


def queries(counts: Counter[str]) -> int:
    """Return how many statements read or write rows."""
    return counts.total() - counts["other"]
