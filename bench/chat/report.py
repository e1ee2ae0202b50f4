"""Shows the figures of chat runs: each goal, then each beside its raw comparison. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.report import table

Found = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """One promise; `needs` names the figures that it is made of, in `figures` or, for a series, in `single_runs`."""

    needs: str
    words: str
    reach: float
    value: Callable[[Found], float]
    is_least: bool = False

    def missing(self) -> tuple[object, ...]:
        """Return the goal without a figure."""
        return self.words, f"{'≥' if self.is_least else '≤'} {self.reach}", None, "not measured"

    def row(self, found: Found) -> tuple[object, ...]:
        """Return the goal beside what was measured."""
        value = self.value(found)
        is_reached = value >= self.reach if self.is_least else value <= self.reach
        return self.words, f"{'≥' if self.is_least else '≤'} {self.reach}", value, "yes" if is_reached else "no"


def _figure(part: str, name: str) -> Callable[[Found], float]:
    return lambda found: float(found["figures"][part][name])


def _share(part: str, name: str) -> Callable[[Found], float]:
    return lambda found: round(found["figures"][part][name] / found["figures"][f"{part}_raw"][name], 3)


def _above(part: str, name: str) -> Callable[[Found], float]:
    return lambda found: round(found["figures"][part][name] - found["figures"][f"{part}_raw"][name], 1)


def _connections(found: Found) -> float:
    idle = found["figures"]["idle"]
    return float(idle["database_connections"] - idle["database_connections_before"])


def _growth(found: Found) -> float:
    sizes = found["single_runs"]["memory"][0]["rss_mb"]
    return round(sizes[-1] - sizes[0], 1)


# Of `flat`: 9,000 runs that each left a kilobyte behind would be seen.
GOALS = (
    Goal("idle", "10,000 idle tails: memory of the process, MB", 250, _figure("idle", "rss_mb")),
    Goal("idle", "… its threads", 50, _figure("idle", "threads")),
    Goal("idle", "… its database connections for them", 0, _connections),
    Goal("gaps", "300 runs × 10 tokens/s: gap p99 above the model's, ms", 60, _above("gaps", "gap_p99_ms")),
    Goal(
        "throughput",
        "… at saturation, of the bare relay's tokens/s",
        0.7,
        _share("throughput", "whole_tokens_per_second"),
        is_least=True,
    ),
    Goal(
        "one_log",
        "one log, 2,000 tails: of raw ASGI's events/s",
        0.8,
        _share("one_log", "events_per_second"),
        is_least=True,
    ),
    Goal(
        "first_tokens",
        "first token added, 50 turns under way at any time, p95 ms",
        50,
        _above("first_tokens", "steady_p95_ms"),
    ),
    Goal("first_tokens", "… 50 turns begun in the same moment, p95 ms", 50, _above("first_tokens", "burst_p95_ms")),
    Goal("stop_own", "stop through the run's process, p95 ms", 300, _figure("stop_own", "all_p95_ms")),
    Goal("stop_other", "stop through another process, p95 ms", 300, _figure("stop_other", "all_p95_ms")),
    Goal("resume_own", "resume through the run's process, p95 ms", 100, _figure("resume_own", "resume_p95_ms")),
    Goal("resume_other", "resume through another process, p95 ms", 100, _figure("resume_other", "resume_p95_ms")),
    Goal("memory", "memory grown from 1,000 to 10,000 runs, MB", 9, _growth),
)


def show_chat(found: dict[str, Any]) -> str:
    """Return the tables of goals and of comparisons."""
    rows: list[tuple[object, ...]] = [("goal", "reach", "measured", "reached")]
    rows += [goal.row(found) if goal.needs in found["single_runs"] else goal.missing() for goal in GOALS]
    runs = ", ".join(sorted({str(count) for name, count in found["runs"].items() if not name.startswith("memory")}))
    parts = [table(*rows) + f"\n\nMedians of {runs} runs."]
    figures = found["figures"]
    shown = ((name, show) for name, show in _SHOWN.items() if name in figures)
    parts += [show(figures) for _, show in shown]
    if "memory" in found["single_runs"]:
        parts.append(_show_memory(found))
    return "\n\n".join(parts)


def _rows(figures: dict[str, Any], sides: dict[str, str], names: dict[str, str]) -> str:
    rows: list[tuple[object, ...]] = [("", *sides.values())]
    rows += [(words, *(figures[side].get(name) for side in sides)) for name, words in names.items()]
    return table(*rows)


def _show_idle(figures: dict[str, Any]) -> str:
    names = {
        "rss_mb": "10,000 idle tails: memory, MB",
        "rss_before_mb": "before them, MB",
        "bytes_per_tail": "bytes a tail",
        "threads": "threads",
        "database_connections": "database connections",
        "database_connections_before": "before them, database connections",
        "opened_per_second": "opened a second",
        "cores_at_rest": "cores used for pings",
    }
    return _rows(figures, {"idle": "SmartFlow", "idle_raw": "raw ASGI"}, names)


def _show_gaps(figures: dict[str, Any]) -> str:
    names = {"gap_p50_ms": "300 × 10 tokens/s: gap p50, ms", "gap_p99_ms": "gap p99, ms", "cores": "cores used"}
    return _rows(figures, {"gaps": "SmartFlow", "gaps_raw": "the model, read directly"}, names)


def _show_throughput(figures: dict[str, Any]) -> str:
    sides = {
        "throughput": "SmartFlow",
        "throughput_raw": "bare relay, typed stream",
        "throughput_bytes": "bare relay, bytes",
        "throughput_model": "the model alone",
    }
    names = {
        "whole_tokens_per_second": "300 runs at saturation: tokens/s, ends included",
        "streaming_tokens_per_second": "tokens/s until the last token",
        "us_per_token": "µs of the process a token",
        "cores": "cores used",
    }
    return _rows(figures, sides, names)


def _show_one_log(figures: dict[str, Any]) -> str:
    names = {
        "events_per_second": "one log, 2,000 tails: events/s",
        "us_per_event": "µs of the process an event",
        "cores": "cores used",
    }
    return _rows(figures, {"one_log": "SmartFlow", "one_log_raw": "raw ASGI"}, names)


def _show_first_tokens(figures: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [
        ("ms to the first token, p50 / p95", "SmartFlow", "bare relay", "added p50", "added p95")
    ]
    kinds = {"single": "one by one", "steady": "50 under way at any time", "burst": "50 in the same moment"}
    for kind, words in kinds.items():
        pairs = [_pair(figures[side], kind) for side in ("first_tokens", "first_tokens_raw")]
        added = [_above("first_tokens", f"{kind}_{label}_ms")({"figures": figures}) for label in ("p50", "p95")]
        rows.append((words, *pairs, *added))
    return table(*rows)


def _show_visits(figures: dict[str, Any]) -> str:
    ways = {"own": "the run's process", "other": "another process", "raw": "raw ASGI"}
    rows: list[tuple[object, ...]] = [("ms, p50 / p95", *ways.values())]
    stops = {
        "all": "stop: all of it",
        "told": "the asker is told",
        "seen": "the reader has the end",
        "closed": "the model's call is closed",
    }
    for name, words in stops.items():
        rows.append((words, *(_pair(figures[f"stop_{way}"], name) for way in ways)))
    rows.append(("resume: the first missing event", *(_pair(figures[f"resume_{way}"], "resume") for way in ways)))
    return table(*rows)


def _show_memory(found: dict[str, Any]) -> str:
    sides = {"memory": "SmartFlow", "memory_raw": "bare relay"}
    series = {side: found["single_runs"][side][0] for side in sides}
    step = series["memory"]["step"]
    rows: list[tuple[object, ...]] = [("memory after so many runs, MB", *sides.values())]
    count = len(series["memory"]["rss_mb"])
    for index in (0, count // 2, count - 1):
        rows.append((f"{step * (index + 1):,}", *(series[side]["rss_mb"][index] for side in sides)))
    return table(*rows)


def _pair(figures: dict[str, Any], name: str) -> str:
    return f"{figures[f'{name}_p50_ms']} / {figures[f'{name}_p95_ms']}"


_SHOWN = {
    "idle": _show_idle,
    "gaps": _show_gaps,
    "throughput": _show_throughput,
    "one_log": _show_one_log,
    "first_tokens": _show_first_tokens,
    "stop_own": _show_visits,
}
