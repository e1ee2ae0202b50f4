"""Shows results as tables, the same in the terminal and in README.md. Pure."""

from typing import Any

ROWS = (
    ("relay alone", "relay", "raw_relay", None),
    ("consumer alone", "consumer", "raw_consumer_single", "raw_consumer_batched"),
    ("pipeline", "pipeline", "raw_pipeline_single", "raw_pipeline_batched"),
)


def _table(*rows: tuple[object, ...]) -> str:
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
    return _table(*rows) + "\n(direct and through: p50 / p95)"


def show_outbox(found: dict[str, Any]) -> str:
    """Return the tables of rates and latencies."""
    return f"{_show_rates(found['figures'])}\n\n{_show_latencies(found['figures'])}"


def _show_rates(figures: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [("rows/s", "SmartFlow", "raw", "share", "raw, 200 a transaction", "share")]
    for name, ours, single, batched in ROWS:
        cells: list[object] = [name, figures[ours]]
        for floor in (single, batched):
            value = figures[floor] if floor else None
            cells += [value, f"{figures[ours] / value:.0%}" if value else None]
        rows.append(tuple(cells))
    return _table(*rows)


def _show_latencies(figures: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [("ms after the commit", "events/s", "SmartFlow", "raw")]
    for name in ("acknowledged", "consumed"):
        for rate in (100, 300):
            cells = [
                " / ".join(str(figures[f"{prefix}at_{rate}_{name}_p{share}_ms"]) for share in (50, 95, 99))
                for prefix in ("", "raw_")
            ]
            rows.append((name, f"{rate} (written {figures[f'at_{rate}_written']:.0f})", *cells))
    return _table(*rows) + "\n(p50 / p95 / p99)"


def show_load(load: dict[str, Any]) -> str:
    """Return one line about the machine."""
    note = "; BUSY MACHINE: others were at work, take the figures as a lower bound" if load["is_busy_machine"] else ""
    return f"load average before {load['before']}, peak {load['peak']}, after {load['after']}{note}"
