"""Every event and every periodic job that is named exists, and old events stay readable."""

import json
import re
from datetime import time

import pytest

from outbox.envelope import decode_stored, decode_wire, encode_stored, encode_wire
from outbox.registry import handled_types, optional_types, topic_for
from smartflow.celery import app
from smartflow.events import CATALOG, EVENT_TYPES
from smartflow.timetable import SHORTEST_EXPIRY_SECONDS, TIMETABLE
from tests.architecture.project_tree import ROOT, list_product_files

GOLDEN = ROOT / "tests" / "golden" / "events"
EVENTS = sorted(CATALOG)
SHAPE = re.compile(r"[a-z]+(\.[a-z_]+){2,}")


def golden_file(event_type, version):
    return GOLDEN / f"{event_type}.v{version}.json"


@pytest.mark.parametrize(("event_type", "version"), EVENTS)
def test_event_reads_its_golden_sample_and_writes_it_unchanged(event_type, version):
    sample = json.loads(golden_file(event_type, version).read_text(encoding="utf-8"))
    event = CATALOG[event_type, version].from_payload(sample)
    assert event.to_payload() == sample
    assert (event.event_type, event.event_version) == (event_type, version)


@pytest.mark.parametrize(("event_type", "version"), EVENTS)
def test_event_survives_the_table_and_the_wire(event_type, version):
    sample = json.loads(golden_file(event_type, version).read_text(encoding="utf-8"))
    event = CATALOG[event_type, version].from_payload(sample)
    stored = encode_stored(event=event, event_id="e-1", aggregate_id="a-1")
    outbox_id, envelope = decode_wire(encode_wire(outbox_id=7, event_id="e-1", stored=stored))
    assert outbox_id == 7
    assert envelope == decode_stored(stored)
    assert CATALOG[envelope.event_type, envelope.event_version].from_payload(envelope.payload) == event


def test_golden_samples_belong_to_events_of_the_catalog():
    """A sample without its event means that rows written by an older release can no longer be read."""
    assert {path.name for path in GOLDEN.iterdir()} == {golden_file(*key).name for key in CATALOG}


def test_event_types_are_domain_resource_action():
    assert [event_type for event_type in EVENT_TYPES if not SHAPE.fullmatch(event_type)] == []


def test_event_versions_have_no_gaps():
    for event_type in EVENT_TYPES:
        versions = sorted(version for known, version in CATALOG if known == event_type)
        assert versions == list(range(1, len(versions) + 1)), event_type


def test_every_event_type_has_a_topic_and_a_handler_or_is_a_fact():
    assert {topic_for(event_type) for event_type in EVENT_TYPES}
    assert handled_types() <= EVENT_TYPES == handled_types() | optional_types()


def our_jobs():
    app.loader.import_default_modules()
    return {name for name in app.tasks if not name.startswith("celery.")}


def test_every_entry_of_the_timetable_is_a_job():
    assert {entry["task"] for entry in TIMETABLE.values()} - our_jobs() == set()


def test_jobs_stand_in_jobs_modules_and_are_named_after_them():
    modules = {name.removesuffix(".py").replace("/", ".") for name in list_product_files()}
    for name in our_jobs():
        job = app.tasks[name]
        assert name == f"{job.run.__module__}.{job.run.__name__}"
        assert name.rpartition(".")[0].endswith("jobs")
        assert job.run.__module__ in modules


def test_timetable_ticks_expire_and_do_not_pile_up():
    for title, entry in TIMETABLE.items():
        # a job of the night comes once a day
        period = 3600 if isinstance(entry["schedule"], time) else entry["schedule"]
        assert 0 < entry["options"]["expires"] <= max(period, SHORTEST_EXPIRY_SECONDS) <= 3600, title
