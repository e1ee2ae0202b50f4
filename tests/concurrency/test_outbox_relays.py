"""Relays at the same moment, each with a connection of its own: rows are disjoint, order per key holds."""

from collections import defaultdict

import pytest

from outbox.models import OutboxMessage, Status
from tests.outbox_rows import NOW, RecordingTransport, SharedLog, append, claim, run_pass
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("relays", [2, 4])
def test_claim_rows_gives_each_row_to_one_relay(relays):
    for number in range(120):
        append(f"key{number}")

    claims = run_at_once(*[lambda: claim(limit=30)] * relays)

    taken = [row.id for one in claims for row in one.rows]
    assert len(taken) == len(set(taken))
    assert 30 <= len(taken) <= 30 * relays
    for one in claims:
        held = OutboxMessage.objects.filter(claim_token=one.token).values_list("id", flat=True)
        assert sorted(held) == sorted(row.id for row in one.rows)


def test_claim_rows_gives_the_rows_of_one_key_to_one_relay():
    for _ in range(40):
        append("hot")

    claims = run_at_once(*[lambda: claim(limit=10)] * 3)

    assert sorted(len(one.rows) for one in claims) == [0, 0, 10]


@pytest.mark.parametrize("attempt", range(3))
def test_run_pass_keeps_the_order_of_each_key_when_relays_work_side_by_side(attempt):
    ids_by_key = defaultdict(list)
    for number in range(200):
        key = f"key{number % 9}"
        ids_by_key[key].append(append(key))
    broker = SharedLog()

    # A relay leaves when all that is due is held by others, so each of them looks several times.
    run_at_once(*[lambda: [run_pass(broker, lambda: NOW, batch_size=7) for _ in range(30)]] * 3)
    run_pass(broker, lambda: NOW)

    published = defaultdict(list)
    for message in broker.published:
        published[message.key].append(message.outbox_id)
    assert published == ids_by_key
    assert not OutboxMessage.objects.exclude(status=Status.PUBLISHED).exists()


def test_append_event_goes_on_while_relays_claim():
    def write():
        return [append(f"key{number % 5}") for number in range(40)]

    def relay():
        broker = RecordingTransport()
        for _ in range(40):
            run_pass(broker, lambda: NOW, batch_size=5)
        return broker.ids

    *written, first, second = run_at_once(write, write, relay, relay)

    rest = RecordingTransport()
    run_pass(rest, lambda: NOW)
    assert sorted(first + second + rest.ids) == sorted(pk for ids in written for pk in ids)
