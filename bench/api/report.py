"""Shows the figures of the task routes. Pure."""

from typing import Any

from bench.report import table


def show_api(found: dict[str, Any]) -> str:
    """Return the table of the views."""
    rows: list[tuple[object, ...]] = [
        (
            "view",
            "requests/s",
            "bare Django",
            "share (≥ 50%)",
            "p50 / p95 ms",
            "bare p50 / p95 ms",
            "CPU ms",
            "bare",
            "queries",
            "bare",
        )
    ]
    for name, view in found["views"].items():
        spreads = [f"{view[f'{side}_p50_ms']} / {view[f'{side}_p95_ms']}" for side in ("web", "bare")]
        rates = (view["web_rate"], view["bare_rate"], f"{view['ratio']:.0%}")
        counts = [view[f"{side}_{figure}"] for figure in ("cpu_ms", "queries") for side in ("web", "bare")]
        rows.append((name, *rates, *spreads, *counts))
    return table(*rows)
