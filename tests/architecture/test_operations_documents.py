"""docs/ops/: alert rules, board and runbook name metrics, sections and settings that exist."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from django.urls import get_resolver
from prometheus_client import REGISTRY, generate_latest

from tests.architecture.project_tree import ROOT, read

RULES = {
    rule["alert"]: rule for group in yaml.safe_load(read("docs/ops/alerts.yml"))["groups"] for rule in group["rules"]
}
BOARD = json.loads(read("docs/ops/grafana-outbox.json"))
RUNBOOK = read("docs/ops/runbook.md")
METRIC = re.compile(r"\b(?:outbox|http)_[a-z_]+")


def expressions():
    found = {name: rule["expr"] for name, rule in RULES.items()}
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.fixture
def exposed(db, monkeypatch):
    """Return the names of every metric that a process can show, also those that have no value yet."""
    assert get_resolver().url_patterns  # a web process has loaded its routes, and with them the edge
    text = generate_latest(REGISTRY).decode()
    names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    return names | {f"{name}_bucket" for name in names}


@pytest.mark.parametrize(("where", "expression"), sorted(expressions().items()))
def test_every_metric_that_is_named_exists(exposed, where, expression):
    named = set(METRIC.findall(expression))
    assert named
    assert named - exposed == set()


def test_every_metric_is_on_the_board_or_in_an_alert(exposed):
    named = {name for expression in expressions().values() for name in METRIC.findall(expression)}
    ours = {name for name in exposed if name.startswith("outbox_") and not name.endswith(("_created", "_bucket"))}
    assert {name for name in ours if name not in named and f"{name}_bucket" not in named} == set()


def test_every_alert_says_how_bad_it_is_and_where_to_read_on():
    assert len(RULES) >= 8
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/ops/runbook.md#{name.lower()}"


def test_the_runbook_has_a_section_for_every_alert_and_no_other():
    sections = set(re.findall(r"^## ((?:Outbox|Edge)\w+)$", RUNBOOK, re.MULTILINE))
    assert sections == set(RULES)


def test_panels_do_not_overlap():
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)")
def test_prometheus_accepts_the_rules():
    command = ["promtool", "check", "rules", str(ROOT / "docs/ops/alerts.yml")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
