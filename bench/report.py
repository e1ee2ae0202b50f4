"""Shows results as tables, the same in the terminal and in README.md. Pure."""

from typing import Any

RATES = (
    ("commit → consumed, 10 rows a key", "pipeline", "raw_pipeline"),
    ("commit → consumed, one hot key", "one_key_pipeline", "raw_pipeline"),
    ("relay alone, one process", "relay", "raw_relay"),
    ("relays alone, four processes", "four_relays", "raw_relay"),
    ("consumer alone", "consumer", "raw_consumer"),
)
STATEMENTS = (
    ("relay, a message", "worker_statements_per_message", "worker_with_commits_per_message"),
    ("consumer, a message", "consumer_statements_per_message", "consumer_with_commits_per_message"),
    ("worker at rest, a second", "idle_worker_queries_per_second", None),
    ("consumer at rest, a second", "idle_consumer_queries_per_second", None),
)


def table(*rows: tuple[object, ...]) -> str:
    """Return a Markdown table; the first row is its head, None is a dash."""
    shown = [[("–" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in shown
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def show_first_token(parts: dict[str, Any]) -> str:
    """Return the table of the times to the first token, in milliseconds."""
    rows: list[tuple[object, ...]] = [
        ("ms to the first token", "at once", "direct", "through", "added p50", "added p95")
    ]
    for parts_name, found in parts.items():
        for concurrent in ("1", "50"):
            figures = found[concurrent]
            direct, through = (f"{figures[f'{side}_p50']} / {figures[f'{side}_p95']}" for side in ("direct", "through"))
            rows.append((parts_name, concurrent, direct, through, figures["added_p50"], figures["added_p95"]))
    return table(*rows) + "\n(direct and through: p50 / p95)"


def show_outbox(found: dict[str, Any]) -> str:
    """Return the tables of goals, rates, latencies and statements."""
    figures = found["figures"]
    parts = (
        _show_goals(found),
        _show_rates(figures),
        _show_latencies(figures),
        _show_statements(figures, found["append"]),
    )
    return "\n\n".join(parts)


def _show_goals(found: dict[str, Any]) -> str:
    """Return each goal of the issue beside what was measured."""
    figures, ratios = found["figures"], found["ratios"]
    statements = figures["worker_statements_per_message"], figures["consumer_statements_per_message"]
    idle = figures["idle_worker_queries_per_second"] + figures["idle_consumer_queries_per_second"]
    goals = [
        ("commit → consumed, rows/s", 2500, figures["pipeline"]),
        ("the same, of the raw pipeline", 0.6, ratios["pipeline_of_raw"]),
        ("relay alone, rows/s", 6000, figures["relay"]),
        ("the same, of the raw relay", 0.6, ratios["relay_of_raw"]),
        ("one hot key, of the many-key rate", 0.5, ratios["one_key_of_many"]),
        ("four relays, of one", 1.6, ratios["four_relays_of_one"]),
        ("300 events/s: commit → acknowledged, p50 ms", -12, figures["acknowledged_p50_ms"]),
        ("300 events/s: commit → acknowledged, p99 ms", -80, figures["acknowledged_p99_ms"]),
        ("300 events/s: commit → consumed, p99 ms", -200, figures["consumed_p99_ms"]),
        ("lock errors in any log", -0, found["lock_errors_in_logs"]),
        ("relay, statements a message", -0.01, statements[0]),
        ("consumer, statements a message", -0.1, statements[1]),
        ("at rest, queries/s", -10, idle),
    ]
    rows: list[tuple[object, ...]] = [("goal", "reach", "measured", "reached")]
    rows += [
        (name, f"{'≥' if goal > 0 else '≤'} {abs(goal)}", value, _reached(goal, value)) for name, goal, value in goals
    ]
    return table(*rows) + f"\n\nMedians of {found['runs']} runs."


def _reached(goal: float, value: float) -> str:
    """A goal above zero is a least, any other a most."""
    return "yes" if (value >= goal if goal > 0 else value <= -goal) else "no"


def _show_rates(figures: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [("rows/s", "SmartFlow", "raw", "share")]
    for name, ours, floor in RATES:
        rows.append((name, figures[ours], figures[floor], f"{figures[ours] / figures[floor]:.0%}"))
    return table(*rows)


def _show_latencies(figures: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [("ms after the commit", "SmartFlow", "raw")]
    for name in ("acknowledged", "consumed"):
        cells = [
            " / ".join(str(figures[f"{prefix}{name}_p{share}_ms"]) for share in (50, 95, 99)) for prefix in ("", "raw_")
        ]
        rows.append((name, *cells))
    rows.append(("events/s written", figures["written"], figures["raw_written"]))
    return table(*rows) + "\n(p50 / p95 / p99)"


def _show_statements(figures: dict[str, Any], append: dict[str, float]) -> str:
    rows: list[tuple[object, ...]] = [("statements", "read or write rows", "with begin, commit, savepoint")]
    rows += [(name, figures[plain], figures[full] if full else None) for name, plain, full in STATEMENTS]
    rows += [("append, INSERTs an event", append["single_inserts_per_event"], None)]
    rows += [("append 100 in bulk, INSERTs an event", append["bulk_inserts_per_event"], None)]
    return table(*rows)


def show_peers(found: dict[str, Any]) -> str:
    """Return the table of the other projects."""
    rows: list[tuple[object, ...]] = [("peer", "rows/s", "ms after the commit, p50 / p99")]
    for name, figures in found["figures"].items():
        rows.append((name, figures["rows_per_second"], f"{figures['p50_ms']} / {figures['p99_ms']}"))
    return table(*rows)


def show_long(found: dict[str, Any]) -> str:
    """Return the rates of the long drain."""
    first, last, rows = found["by_tenth"][0], found["by_tenth"][-1], found["rows"]
    return table(
        ("pending, finished", "sent", "pool", "rows/s to Kafka", "first tenth", "last whole tenth", "last of first"),
        (
            f"{rows['pending']:,}, {rows['finished']:,}",
            f"{rows['sent']:,}",
            f"{found['server']['innodb_buffer_pool_mb']} MB",
            found["rows_per_second"],
            first,
            last,
            f"{last / first:.0%}",
        ),
    )


def show_load(load: dict[str, Any]) -> str:
    """Return one line about the machine."""
    note = "; BUSY MACHINE: others were at work, take the figures as a lower bound" if load["is_busy_machine"] else ""
    return f"load average before {load['before']}, peak {load['peak']}, after {load['after']}{note}"
