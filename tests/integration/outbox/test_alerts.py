"""docs/ops/alerts.yml: each fault, brought about in the tables, fires its alert; calm fires none.

What a scraper reads is judged by Prometheus's own promtool where it is installed, else by the few operators below.
"""

import json
import re
import shutil
import subprocess
from collections import defaultdict
from datetime import timedelta

import pytest
import yaml
from django.conf import settings
from django.db import OperationalError
from prometheus_client import CollectorRegistry

from outbox import collector, metrics
from outbox.database_clock import database_now
from outbox.models import KeyHold, OutboxMessage, PausedType, Status, Worker
from smartflow.api import throttling
from smartflow.api.token_buckets import RedisBuckets
from tests.architecture.project_tree import ROOT, read
from tests.outbox_rows import EVENT_TYPE, append, change, new_row

pytestmark = pytest.mark.django_db
RULES = {
    rule["alert"]: rule for group in yaml.safe_load(read("docs/ops/alerts.yml"))["groups"] for rule in group["rules"]
}


def beat(name, kind, *, seconds_ago=1, **state):
    """Write the row of a worker as its last heartbeat left it."""
    at = database_now() - timedelta(seconds=seconds_ago)
    moments = {"started_at": at, "heartbeat_at": at, "lease_until": at + timedelta(seconds=10)}
    Worker.objects.update_or_create(name=name, defaults={"kind": kind, "owner": "o", "state": state, **moments})


def write(key):
    """Append an event now."""
    return append(key=key, now=database_now())


def relay(**state):
    beat("relay-0", "relay", **{"shards": [0, 63], "breaker": "closed"} | state)


def consumer(**state):
    beat("consumer a:1", "consumer", **state)


@pytest.fixture(autouse=True)
def calm(db):
    """Begin with everybody at work and nothing to do."""
    relay()
    consumer(partitions=[{"topic": "t", "partition": 0, "position": 5, "end": 9, "lag": 4}])
    write("calm")


def scrape():
    """Return every sample of the outbox, and what the edge could not check: (name, labels) → value."""
    registry = CollectorRegistry()
    registry.register(collector.OutboxCollector())
    registry.register(throttling.UNCHECKED)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


# --- the faults, by the alert that each one fires ---------------------------------------------------------------------
def not_scraped(monkeypatch):
    monkeypatch.setattr(collector.OutboxCollector, "collect", lambda self: iter(()))


def database_away(monkeypatch):
    def fail(**_kwargs):
        raise OperationalError(2006, "gone")

    monkeypatch.setattr(collector, "overview", fail)


def late(monkeypatch):
    OutboxMessage.objects.update(created_at=database_now() - timedelta(seconds=45))


def relay_missing(monkeypatch):
    relay(seconds_ago=60)


def one_of_two_relays_missing(monkeypatch):
    relay(shards=[0, 31])
    beat("relay-1", "relay", seconds_ago=60, shards=[32, 63])


def consumer_missing(monkeypatch):
    consumer(seconds_ago=60)


def breaker_open(monkeypatch):
    relay(breaker="open")


def consumers_behind(monkeypatch):
    consumer(partitions=[{"topic": "t", "partition": 0, "position": 0, "end": 10_001, "lag": 10_001}])


def not_handled(monkeypatch):
    change(write("published"), status=Status.PUBLISHED, published_at=database_now() - timedelta(minutes=3))


def dead_letter(monkeypatch):
    change(write("dead"), status=Status.DEAD, last_error="HandlerMissing: nothing handles it")


def key_blocked(monkeypatch):
    held = write("blocked")
    change(held, ready_shard=None)
    KeyHold.objects.create(message_key="blocked", head_id=held - 1, since=database_now())


def type_paused(monkeypatch):
    since = database_now() - timedelta(hours=2)
    PausedType.objects.create(event_type=EVENT_TYPE, reason="r", by="b", paused_at=since)


def retries_pile_up(monkeypatch):
    now = database_now()
    rows = [
        new_row(
            event_id=f"waiting-{number}",
            biz_type=EVENT_TYPE,
            topic="t",
            message_key=f"w{number}",
            payload="{}",
            next_retry_at=now + timedelta(minutes=1),
            created_at=now,
            updated_at=now,
        )
        for number in range(1001)
    ]
    OutboxMessage.objects.bulk_create(rows)


def order_violated(monkeypatch):
    collector.TALLY.add("violations")


def fence_rejects(monkeypatch):
    collector.TALLY.add("fenced", 1000)


def slow(monkeypatch):
    now = database_now()
    metrics.observe_consumed(written_at=[now - timedelta(seconds=20)] * 50, now=now, batch_seconds=1)


def rate_unchecked(monkeypatch):
    away = RedisBuckets("redis://127.0.0.1:1/0", prefix="tests")
    monkeypatch.setattr(throttling, "_kept_in", lambda url: away)
    monkeypatch.setattr(settings, "RATE_LIMITS", True)
    assert throttling.check_rate(group="read", user_id=1, address="192.0.2.1") is None


FAULTS = [
    ("OutboxNotScraped", not_scraped),
    ("OutboxDatabaseAway", database_away),
    ("OutboxLate", late),
    ("OutboxRelayMissing", relay_missing),
    ("OutboxRelayMissing", one_of_two_relays_missing),
    ("OutboxConsumerMissing", consumer_missing),
    ("OutboxBreakerOpen", breaker_open),
    ("OutboxConsumersBehind", consumers_behind),
    ("OutboxPublishedButNotHandled", not_handled),
    ("OutboxDeadLetters", dead_letter),
    ("OutboxKeysBlocked", key_blocked),
    ("OutboxTypePausedForLong", type_paused),
    ("OutboxRetriesPileUp", retries_pile_up),
    ("OutboxOrderViolated", order_violated),
    ("OutboxFenceRejects", fence_rejects),
    ("OutboxSlow", slow),
    ("EdgeRateUnchecked", rate_unchecked),
]


# --- a judge for the rules as they are written ------------------------------------------------------------------------
COMPARED = re.compile(r"(?P<left>.+) (?P<sign>[<>]|==) (?P<limit>[\d.]+)")
GAUGE = re.compile(
    r"(?P<fold>max|min)(?: by \((?P<by>[^)]*)\))? ?\((?P<name>\w+)(?:\{(?P<label>\w+)=\"(?P<value>\w+)\"\})?\)"
)
GROWTH = re.compile(r"sum\((?P<how>increase|rate)\((?P<name>\w+)\[(?P<minutes>\d+)m\]\)\)")
SIGNS = {">": lambda a, b: a > b, "<": lambda a, b: a < b, "==": lambda a, b: a == b}


def is_fired(rule, before, after):
    """Tell whether a rule fires on what was scraped. Knows the forms of alerts.yml, and refuses any other."""
    expression = rule["expr"]
    if absent := re.fullmatch(r"absent\((\w+)\)", expression):
        return all(name != absent[1] for name, _ in after)
    compared = COMPARED.fullmatch(expression)
    values = _values(compared["left"], before, after)
    return any(SIGNS[compared["sign"]](value, float(compared["limit"])) for value in values)


def _values(left, before, after):
    if left.startswith("time() - "):
        return [database_now().timestamp() - value for value in _values(left.removeprefix("time() - "), before, after)]
    if left.startswith("histogram_quantile(0.99"):
        return [_quantile(re.search(r"\w+_bucket", left)[0], before, after)]
    if growth := GROWTH.fullmatch(left):
        seconds = 60 * int(growth["minutes"]) if growth["how"] == "rate" else 1
        grown = [value - before[sample] for sample, value in after.items() if sample[0] == growth["name"]]
        return [sum(grown) / seconds] if grown else []
    gauge = GAUGE.fullmatch(left)
    assert gauge, f"no judge for {left}"
    groups = defaultdict(list)
    for (name, labels), value in after.items():
        if name == gauge["name"] and (not gauge["label"] or (gauge["label"], gauge["value"]) in labels):
            groups[tuple(pair for pair in labels if pair[0] in (gauge["by"] or ""))].append(value)
    return [max(found) if gauge["fold"] == "max" else min(found) for found in groups.values()]


def _quantile(name, before, after):
    grown = sorted(
        (float(dict(labels)["le"]), value - before[found, labels])
        for (found, labels), value in after.items()
        if found == name
    )
    total = grown[-1][1] if grown else 0
    return next((limit for limit, count in grown if count >= 0.99 * total), 0) if total else 0


def fired(before, after):
    return {name for name, rule in RULES.items() if is_fired(rule, before, after)}


def test_every_alert_has_a_fault():
    assert {name for name, _ in FAULTS} == set(RULES)


def test_calm_fires_nothing():
    before = scrape()
    assert fired(before, scrape()) == set()


@pytest.mark.parametrize(("alert", "fault"), FAULTS)
def test_each_fault_fires_its_alert_and_no_other(monkeypatch, alert, fault):
    before = scrape()
    fault(monkeypatch)
    assert fired(before, scrape()) == {alert}


# --- the same by Prometheus itself ------------------------------------------------------------------------------------
JUDGED_AFTER_MINUTES = 20


def _series(name, labels, first, last):
    """Return a series in promtool's words: a gauge stands still, a counter grows every minute by what it has grown."""
    if name == "outbox_paused_since":  # promtool's clock begins at zero
        last += 60 * JUDGED_AFTER_MINUTES - database_now().timestamp()
    step = last - first if name.endswith(("_total", "_bucket", "_count", "_sum")) else 0
    inside = ",".join(f"{label}={json.dumps(value)}" for label, value in labels)
    sign = "+" if step >= 0 else "-"
    return {"series": f"{name}{{{inside}}}", "values": f"{last:.6f}{sign}{abs(step):.6f}x{2 * JUDGED_AFTER_MINUTES}"}


def promtool(before, after, folder):
    """Return which alerts Prometheus's own judge sees firing, given what was scraped; as its complaint when wrong."""
    case = {
        "interval": "1m",
        "input_series": [_series(*sample, before.get(sample, 0), value) for sample, value in after.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{JUDGED_AFTER_MINUTES}m",
                "exp_samples": [{"labels": "never", "value": 0}],
            }
        ],
    }
    rules = str(ROOT / "docs/ops/alerts.yml")
    written = folder / "case.yml"
    written.write_text(yaml.safe_dump({"rule_files": [rules], "evaluation_interval": "1m", "tests": [case]}))
    answer = subprocess.run(["promtool", "test", "rules", written], capture_output=True, text=True, check=False)
    got = answer.stderr.partition("got:")[2]
    assert got, answer.stderr
    return set(re.findall(r'alertname="(\w+)"', got))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)")
@pytest.mark.parametrize(("alert", "fault"), [(None, lambda monkeypatch: None), *FAULTS])
def test_prometheus_judges_each_fault_alike(monkeypatch, tmp_path, alert, fault):
    before = scrape()
    fault(monkeypatch)

    assert promtool(before, scrape(), tmp_path) == {alert} - {None}
