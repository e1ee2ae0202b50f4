"""relay.claim_rows: what may be taken, in which order, and who is held back."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox import claim as claim_module
from outbox.claim import Share, claim_rows
from outbox.holds import wake_due_rows
from outbox.models import OutboxMessage, Status
from outbox.settle import settle_published
from outbox.shards import shard_of
from tests.outbox_rows import NOW, RecordingTransport, append, change, claim, row_of, run_pass

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(seconds=60)


def claimed(**options) -> list[int]:
    return [row.id for row in claim(**options).rows]


def test_claim_rows_takes_a_run_of_one_key_in_the_order_of_id():
    first, other, second, third = append("a"), append("b"), append("a"), append("a")

    taken = claimed()

    assert [pk for pk in taken if pk != other] == [first, second, third]
    assert other in taken


def test_claim_rows_marks_the_rows_with_token_and_lease():
    pk = append()

    taken = claim(lease_seconds=10)

    row = row_of(pk)
    assert (row.claim_token, row.lease_until) == (taken.token, NOW + timedelta(seconds=10))
    assert row.status == Status.PENDING


def test_claim_rows_takes_no_more_than_its_limit_oldest_of_a_key_first():
    ids = [append("a") for _ in range(3)]

    taken = claim(limit=2)

    assert [row.id for row in taken.rows] == ids[:2]
    assert claimed(limit=2) == []
    settle_published(ids=ids[:2], token=taken.token, now=NOW)
    assert claimed(limit=2) == ids[2:]


def test_claim_rows_looks_at_the_shards_of_its_share_and_begins_where_it_is_told():
    keys = sorted((f"key{number}" for number in range(40)), key=shard_of)
    by_shard = {append(key): shard_of(key) for key in keys}

    taken = claim_rows(limit=100, lease_seconds=10, now=NOW, share=Share(first=10, last=30, start=20)).rows

    shards = [by_shard[row.id] for row in taken]
    expected = sorted(shard for shard in by_shard.values() if 10 <= shard <= 30)
    assert shards == [shard for shard in expected if shard >= 20] + [shard for shard in expected if shard < 20]


def test_claim_rows_takes_nothing_that_another_relay_holds():
    append()
    claim()

    assert claimed() == []


def test_claim_rows_takes_a_row_again_when_its_lease_has_expired():
    pk = append()
    first = claim(lease_seconds=10)

    again = claim(now=NOW + timedelta(seconds=10))

    assert [row.id for row in again.rows] == [pk]
    assert again.token != first.token


@pytest.mark.parametrize("status", [Status.PUBLISHED, Status.CONSUMED, Status.DEAD])
def test_claim_rows_takes_pending_rows_only(status):
    change(append(), status=status, published_at=NOW, consumed_at=NOW)

    assert claimed() == []


def test_claim_rows_takes_a_waiting_row_when_its_time_has_come():
    pk = append()
    change(pk, next_retry_at=LATER)

    assert wake_due_rows(now=LATER - timedelta(microseconds=1)) == 0
    assert claimed(now=LATER) == []
    assert wake_due_rows(now=LATER) == 1
    assert claimed(now=LATER) == [pk]


def test_claim_rows_holds_the_followers_of_a_waiting_head_and_lets_other_keys_flow():
    head, follower, other = append("a"), append("a"), append("b")
    change(head, next_retry_at=LATER)

    assert claimed() == [other]
    wake_due_rows(now=LATER)
    assert claimed(now=LATER, limit=2) == [head, follower]


def test_claim_rows_holds_the_followers_of_a_row_in_flight():
    append("a")
    assert len(claimed(limit=1)) == 1
    append("a")
    other = append("b")

    assert claimed() == [other]


def test_claim_rows_takes_the_rows_before_a_waiting_one_and_none_behind_it():
    first, waiting, last = append("a"), append("a"), append("a")
    change(waiting, next_retry_at=LATER)

    assert claimed() == [first]
    assert row_of(last).claim_token is None


@pytest.mark.parametrize("status", [Status.CONSUMED, Status.PUBLISHED])
def test_claim_rows_lets_a_row_pass_when_its_predecessor_is_through(status):
    head, follower = append("a"), append("a")
    change(head, status=status, published_at=NOW, consumed_at=NOW)

    assert claimed() == [follower]


def test_claim_rows_gives_rows_back_that_stand_behind_one_another_relay_took_meanwhile(monkeypatch):
    ids = [append("a") for _ in range(3)]
    other = append("b")
    read = claim_module._read_ready_rows

    def read_and_lose_one(**options):
        rows = read(**options)
        change(ids[1], claim_token="another", lease_until=LATER)
        return rows

    monkeypatch.setattr(claim_module, "_read_ready_rows", read_and_lose_one)
    taken = claim()

    assert sorted(row.id for row in taken.rows) == [ids[0], other]
    assert [row_of(pk).claim_token for pk in ids] == [taken.token, "another", None]


def test_claim_rows_does_not_wait_for_a_writer_that_has_not_committed():
    """Nor does it see the row; the plain SELECT says so on every database."""
    append("a")
    with CaptureQueriesContext(connection) as queries:
        claim()

    assert not [query["sql"] for query in queries if "FOR UPDATE" in query["sql"]]


def test_claim_rows_compares_keys_byte_by_byte():
    head, other = append("a"), append("A")
    change(head, next_retry_at=LATER)

    assert claimed() == [other]


@pytest.mark.parametrize("hold", ["waiting", "in flight"])
def test_run_pass_reaches_other_keys_when_a_hot_key_waits_with_more_followers_than_a_batch(clock, hold):
    head = append("hot")
    if hold == "waiting":
        change(head, next_retry_at=LATER)
    else:
        claim()
    followers = [append("hot") for _ in range(25)]
    others = [append(f"cold{number}") for number in range(8)]
    transport = RecordingTransport()

    run_pass(transport, clock, batch_size=5)

    assert sorted(transport.ids) == others
    assert OutboxMessage.objects.filter(status=Status.PENDING).count() == 26
    clock.now = LATER
    run_pass(transport, clock, batch_size=5)
    assert transport.ids[len(others) :] == [head, *followers]


def test_run_pass_reaches_other_keys_when_more_followers_wait_than_one_claim_walks_past(clock):
    head = append("hot")
    change(head, next_retry_at=LATER)
    for _ in range(50):
        append("hot")
    other = append("cold")
    transport = RecordingTransport()

    run_pass(transport, clock, batch_size=2)

    assert transport.ids == [other]


def test_run_pass_reaches_other_keys_when_a_dead_relay_holds_the_head_of_a_long_hot_key(clock):
    append("hot")
    claim(limit=1)
    for _ in range(50):
        append("hot")
    other = append("cold")
    transport = RecordingTransport()

    run_pass(transport, clock, batch_size=2)

    assert transport.ids == [other]


def test_claim_rows_gives_held_followers_the_time_of_their_head():
    head, follower = append("a"), append("a")
    change(head, next_retry_at=LATER)

    claim()

    assert row_of(follower).next_retry_at == LATER
    assert OutboxMessage.objects.filter(claim_token__isnull=False).count() == 0
