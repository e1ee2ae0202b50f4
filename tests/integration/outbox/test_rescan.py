"""outbox/rescan.py: rows whose message nobody will be given again go round again, and nothing that is merely late."""

from datetime import timedelta

import pytest

from outbox.models import LocalMessage, OutboxMessage, Status
from outbox.registry import topic_for
from outbox.rescan import Rescan
from outbox.transports.local import LocalTransport
from outbox.transports.stall import Offsets, is_passed_over
from tests.outbox_rows import EVENT_TYPE, NOW, RecordingTransport, append, change, claim, row_of, run_pass

pytestmark = pytest.mark.django_db
LONG_AGO = NOW - timedelta(hours=5)
TOPIC = topic_for(EVENT_TYPE)


class Broker(RecordingTransport):
    """Says how far the group is, and what it keeps: everything, up to the thousandth message, if nothing else is said.

    `during_look` runs before its answer.
    """

    def __init__(self):
        super().__init__()
        self.partitions = {}
        self.during_look = lambda: None
        self.looks = 0

    def set(self, partition=0, *, committed=0, low=0, end=1000):
        self.partitions[TOPIC, partition] = Offsets(low=low, end=end, committed=committed)

    def passed_over(self, rows):
        self.looks += 1
        self.during_look()
        return {row.outbox_id for row in rows if is_passed_over(row, seen=self.partitions)}


@pytest.fixture
def broker():
    made = Broker()
    made.set()
    return made


def published(offset: int | None = 7, partition: int | None = 0, *, at=LONG_AGO, **fields: object) -> int:
    pk = append(f"key of {offset}")
    fields = {"published_partition": partition, "published_offset": offset, "published_at": at, **fields}
    change(pk, status=Status.PUBLISHED, **fields)
    return pk


def rescan(transport, *, page=100, now=NOW, pages=10) -> int:
    return Rescan(transport=transport, unknown_seconds=30, page=page).run(now=now, pages=pages)


def test_rescan_sends_lost_rows_round_again_and_leaves_the_rest(broker):
    broker.set(committed=6)
    lost, young, late = published(4), published(5, at=NOW - timedelta(seconds=4)), published(6)
    done, dead = published(2), published(3)
    change(done, status=Status.CONSUMED, consumed_at=LONG_AGO)
    change(dead, status=Status.DEAD)

    assert rescan(broker) == 1
    assert [row_of(pk).status for pk in (lost, late, young, done, dead)] == [
        Status.PENDING,
        Status.PUBLISHED,
        Status.PUBLISHED,
        Status.CONSUMED,
        Status.DEAD,
    ]
    assert row_of(lost).retry_count == 0
    assert [row.id for row in claim().rows] == [lost]


def test_rescan_never_judges_by_age_where_the_broker_still_has_the_message(broker):
    published()

    assert rescan(broker, now=NOW + timedelta(days=30)) == 0


def test_rescan_judges_by_age_where_the_place_is_not_known(broker):
    old = published(None, None, at=NOW - timedelta(seconds=31))
    published(None, None, at=NOW - timedelta(seconds=29))

    assert rescan(broker) == 1
    assert row_of(old).status == Status.PENDING


def test_rescan_leaves_a_row_that_was_published_anew_while_the_broker_was_asked(broker):
    broker.set(committed=8)
    pk = published(7)
    broker.during_look = lambda: change(pk, published_offset=8)

    assert rescan(broker) == 0


@pytest.mark.parametrize("place", [0, 12, 24])
def test_rescan_finds_the_one_lost_row_at_once_wherever_its_number_is_among_many_late_ones(broker, place):
    """Its own partition's queue is short or long; those of others, and their topics', do not matter."""
    broker.set(0, committed=100)
    broker.set(1, committed=20)
    late = [published(100 + number) for number in range(place)]
    lost = published(19, 1)
    late += [published(100 + number) for number in range(place, 25)]
    late += [published(20 + number, 1) for number in range(9)]
    other = TOPIC + ".other"
    broker.partitions[other, 1] = broker.partitions[TOPIC, 0]
    late += [published(100, 1, topic=other)]

    assert rescan(broker, page=5, pages=1) == 1
    assert row_of(lost).status == Status.PENDING
    assert OutboxMessage.objects.filter(id__in=late, status=Status.PUBLISHED).count() == len(late)


def test_rescan_finds_what_the_broker_has_forgotten_at_either_end(broker):
    broker.set(low=3, end=10)
    rows = {offset: published(offset) for offset in (2, 3, 9, 10, 11)}

    assert rescan(broker) == 3
    assert [offset for offset, pk in rows.items() if row_of(pk).status == Status.PUBLISHED] == [3, 9]


def test_rescan_finds_the_rows_of_a_partition_that_is_gone(broker):
    rows = [published(offset, 5) for offset in range(12)]

    assert rescan(broker, page=5) == len(rows)


def test_rescan_asks_nothing_of_the_broker_while_all_is_on_its_way(broker, django_assert_num_queries):
    for offset in range(25):
        published(offset, at=NOW - timedelta(seconds=4))

    with django_assert_num_queries(3):
        assert rescan(broker, page=5) == 0
    assert broker.looks == 0


def test_rescan_asks_the_same_few_queries_however_many_rows_are_late(broker, django_assert_num_queries):
    for offset in range(25):
        published(offset)

    with django_assert_num_queries(3):
        assert rescan(broker, page=5) == 0
    assert broker.looks == 1


def test_rescan_sends_a_page_of_each_partition_before_a_second_one_of_any(broker):
    broker.set(0, committed=1000)
    broker.set(1, committed=1000)
    rows = [published(offset, 0) for offset in range(25)]
    rows += [published(offset, 1) for offset in range(3)]

    assert rescan(broker, page=5, pages=1) == 13  # five from each end of the long one, and all of the short one
    assert rescan(broker, page=5, pages=1) == 10
    assert rescan(broker, page=5) == 5
    assert set(OutboxMessage.objects.filter(id__in=rows).values_list("status", flat=True)) == {Status.PENDING}


@pytest.fixture
def local():
    """A transport without offsets, which lost what the test says."""
    transport = RecordingTransport()
    transport.keeps_positions = False
    return transport


def test_rescan_without_offsets_reaches_a_lost_row_behind_more_late_rows_than_a_page(local):
    for _ in range(25):
        published(None, None)
    local.lost = {published(None, None)}

    walk = Rescan(transport=local, unknown_seconds=30, page=5)

    assert [walk.run(now=NOW, pages=2) for _ in range(6)] == [0, 0, 0, 0, 1, 0]


def test_rescan_without_offsets_looks_at_the_oldest_rows_each_time_wherever_its_walk_is(local):
    first, *_ = [published(None, None) for _ in range(25)]
    walk = Rescan(transport=local, unknown_seconds=30, page=5)
    walk.run(now=NOW, pages=4)

    local.lost = {first}

    assert walk.run(now=NOW, pages=4) == 1


def test_rescan_without_offsets_reads_two_pages_where_nothing_is_lost_and_more_where_much_is(
    local, django_assert_num_queries
):
    rows = [published(None, None) for _ in range(25)]
    with django_assert_num_queries(2):
        assert rescan(local, page=5, pages=4) == 0

    local.lost = set(rows)

    assert rescan(local, page=5, pages=4) == 20


def test_rescan_of_the_local_transport_finds_a_row_without_a_message_and_no_other(clock):
    kept, lost = append("a"), append("b")
    local = LocalTransport()
    run_pass(local, clock)
    LocalMessage.objects.filter(outbox_id=lost).delete()

    assert rescan(local, now=NOW + timedelta(hours=9)) == 1
    assert OutboxMessage.objects.get(status=Status.PENDING).pk == lost
    assert row_of(kept).status == Status.PUBLISHED
