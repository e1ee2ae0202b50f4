"""Puts the measured figures into README.md, so that no figure there was typed: `python -m bench.readme`."""

import json
import sys
from typing import Any

from bench import report
from bench.api.report import show_api
from bench.chat.report import show_chat
from bench.processes import ROOT

README = ROOT / "bench" / "README.md"
RESULTS = ROOT / "bench" / "results.json"
_BEGIN, _END = "<!-- measured -->\n", "<!-- /measured -->\n"


def update() -> None:
    """Write the tables of results.json between the two marks."""
    results = json.loads(RESULTS.read_text())
    before, rest = README.read_text().split(_BEGIN)
    after = rest.split(_END)[1]
    sections = [
        section for name, show in _SHOWN.items() if name in results for section in _section(results, name, show)
    ]
    README.write_text(before + _BEGIN + "\n" + "\n\n".join(sections) + "\n\n" + _END + after)


def _section(results: dict[str, Any], name: str, show: Any) -> list[str]:
    part = results[name]
    found = part["found"]
    return [f"### {_TITLES[name]}", _origin(part, found), show(found)]


def _origin(part: dict[str, Any], found: dict[str, Any]) -> str:
    inner = found if "load" in found else next(iter(found.values()))
    machine = part["machine"]
    parts = [
        f"`{part['command']}` at {machine['code']}, {inner['measured']}",
        f"{machine['cores']} cores, Python {machine['python']}",
        report.show_load(inner["load"]),
    ]
    return "; ".join(parts) + "."


_TITLES = {
    "chat": "Chat runs",
    "api": "Task routes",
    "outbox": "Outbox",
    "long": "A million pending rows beside five million finished ones",
    "peers": "Peers",
    "first_token": "Time to the first token",
}
_SHOWN: dict[str, Any] = {
    "chat": show_chat,
    "api": show_api,
    "outbox": report.show_outbox,
    "long": report.show_long,
    "peers": report.show_peers,
    "first_token": report.show_first_token,
}


if __name__ == "__main__":
    update()
    sys.exit(0)
