"""outbox/append.py: the event exists if and only if the business write does."""

import json

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from outbox.append import AppendOutsideTransaction, NewEvent, append_event, append_events
from outbox.models import OutboxMessage, Status
from outbox.registry import UnknownEventType
from outbox.shards import shard_of
from smartflow.events import Event
from tests.outbox_rows import EVENT_TYPE, NOW, append, make_event, row_of


class Unregistered(Event):
    event_type = "no.such.event"
    event_version = 1


@pytest.mark.django_db(transaction=True)
def test_append_event_refuses_outside_a_transaction():
    with pytest.raises(AppendOutsideTransaction):
        append_event(event=make_event(), key="k", now=NOW)

    assert not OutboxMessage.objects.exists()


@pytest.mark.django_db
def test_append_event_refuses_when_the_type_is_not_registered():
    with pytest.raises(UnknownEventType), transaction.atomic():
        append_event(event=Unregistered(), key="k", now=NOW)

    assert not OutboxMessage.objects.exists()


@pytest.mark.django_db
def test_append_event_refuses_when_the_event_id_was_appended_before():
    append(event_id="e1")

    with pytest.raises(IntegrityError):
        append(event_id="e1")
    assert OutboxMessage.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_append_event_leaves_nothing_when_the_transaction_rolls_back(nudges):
    with transaction.atomic():
        append_event(event=make_event(), key="k", now=NOW)
        transaction.set_rollback(True)

    assert not OutboxMessage.objects.exists()
    assert nudges == []


@pytest.mark.django_db(transaction=True)
def test_append_event_nudges_the_relay_when_the_transaction_commits(nudges):
    append()

    assert len(nudges) == 1


@pytest.mark.django_db
def test_append_event_is_one_insert():
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        append_event(event=make_event(), key="k", now=NOW)

    assert [query["sql"].split()[0] for query in queries] == ["INSERT"]


@pytest.mark.django_db
def test_append_events_is_one_insert_for_many():
    events = [NewEvent(event=make_event(str(number)), key=f"key{number % 3}") for number in range(30)]
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        append_events(events=events, now=NOW)

    assert [query["sql"].split()[0] for query in queries] == ["INSERT"]
    rows = OutboxMessage.objects.order_by("id").values_list("message_key", "shard", "ready_shard")
    assert [row[0] for row in rows] == [new.key for new in events]
    assert {(shard, ready) for _, shard, ready in rows} == {(shard_of(f"key{n}"),) * 2 for n in range(3)}


@pytest.mark.django_db(transaction=True)
def test_append_wakes_the_relays_of_its_shards(nudges):
    append("a")
    with transaction.atomic():
        append_events(events=[NewEvent(event=make_event(), key=key) for key in "abc"], now=NOW)

    assert nudges[0] == (shard_of("a"),)
    assert sorted(nudges[1]) == sorted(shard_of(key) for key in "abc")


@pytest.mark.django_db
def test_append_event_writes_a_pending_row_that_holds_the_envelope(settings):
    settings.OUTBOX_TOPICS = {"chat": "t1"}
    with transaction.atomic():
        pk = append_event(event=make_event("你好 🐉"), key="u1", now=NOW, event_id="e1", request_id="r9")

    row = row_of(pk)
    assert (row.event_id, row.biz_type, row.topic, row.message_key) == ("e1", EVENT_TYPE, "t1", "u1")
    assert (row.status, row.retry_count, row.claim_token, row.request_id) == (Status.PENDING, 0, None, "r9")
    assert json.loads(row.payload)["payload"]["message"] == "你好 🐉"
    assert "你好 🐉" in row.payload


@pytest.mark.django_db
def test_append_event_gives_each_event_an_id_of_its_own():
    ids = {row_of(append()).event_id for _ in range(5)}

    assert len(ids) == 5
