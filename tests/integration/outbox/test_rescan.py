"""outbox/rescan.py: rows whose message nobody will be given again go round again, and nothing that is merely late."""

from datetime import timedelta

import pytest

from outbox.models import LocalMessage, OutboxMessage, Status
from outbox.rescan import Rescan
from outbox.transports.local import LocalTransport
from tests.outbox_rows import NOW, RecordingTransport, append, change, claim, row_of, run_pass

pytestmark = pytest.mark.django_db
LONG_AGO = NOW - timedelta(hours=5)


@pytest.fixture
def transport():
    return RecordingTransport()


def published(key: str = "k", *, at=LONG_AGO, place: tuple[int | None, int | None] = (0, 7)) -> int:
    pk = append(key)
    change(pk, status=Status.PUBLISHED, published_at=at, published_partition=place[0], published_offset=place[1])
    return pk


def rescan(transport, *, page=100, now=NOW) -> int:
    return Rescan(transport=transport, unknown_seconds=30, page=page).run(now=now, pages=10)


def test_rescan_sends_lost_rows_round_again_and_leaves_the_rest(transport):
    lost, late, young = published("a"), published("b"), published("c", at=NOW - timedelta(seconds=4))
    done, dead = append("d"), append("e")
    change(done, status=Status.CONSUMED, published_at=LONG_AGO, consumed_at=LONG_AGO)
    change(dead, status=Status.DEAD, published_at=LONG_AGO)
    transport.lost = {lost, young, done, dead}

    assert rescan(transport) == 1
    assert [row_of(pk).status for pk in (lost, late, young, done, dead)] == [
        Status.PENDING,
        Status.PUBLISHED,
        Status.PUBLISHED,
        Status.CONSUMED,
        Status.DEAD,
    ]
    assert row_of(lost).retry_count == 0
    assert [row.id for row in claim().rows] == [lost]


def test_rescan_never_judges_by_age_where_the_broker_still_has_the_message(transport):
    published()

    assert rescan(transport, now=NOW + timedelta(days=30)) == 0


def test_rescan_judges_by_age_where_the_place_is_not_known(transport):
    old = published("a", at=NOW - timedelta(seconds=31), place=(None, None))
    published("b", at=NOW - timedelta(seconds=29), place=(None, None))

    assert rescan(transport) == 1
    assert row_of(old).status == Status.PENDING


def test_rescan_leaves_a_row_that_was_published_anew_while_the_broker_was_asked(transport):
    pk = published()
    transport.lost = {pk}
    ask = transport.passed_over

    def publish_meanwhile(rows):
        change(pk, published_offset=8)
        return ask(rows)

    transport.passed_over = publish_meanwhile

    assert rescan(transport) == 0


def test_rescan_reaches_a_lost_row_behind_more_late_rows_than_a_page(transport):
    for _ in range(25):
        published("late")
    transport.lost = {published("lost")}

    walk = Rescan(transport=transport, unknown_seconds=30, page=5)

    assert [walk.run(now=NOW, pages=2) for _ in range(6)] == [0, 0, 0, 0, 1, 0]


def test_rescan_looks_at_the_oldest_rows_each_time_wherever_its_walk_is(transport):
    first, *_ = [published("late") for _ in range(25)]
    walk = Rescan(transport=transport, unknown_seconds=30, page=5)
    walk.run(now=NOW, pages=4)

    transport.lost = {first}

    assert walk.run(now=NOW, pages=4) == 1


def test_rescan_reads_two_pages_where_nothing_is_lost_and_more_where_much_is(transport, django_assert_num_queries):
    rows = [published("late") for _ in range(25)]
    with django_assert_num_queries(2):
        assert Rescan(transport=transport, unknown_seconds=30, page=5).run(now=NOW, pages=4) == 0

    transport.lost = set(rows)

    assert Rescan(transport=transport, unknown_seconds=30, page=5).run(now=NOW, pages=4) == 20


def test_rescan_of_the_local_transport_finds_a_row_without_a_message_and_no_other(clock):
    kept, lost = append("a"), append("b")
    local = LocalTransport()
    run_pass(local, clock)
    LocalMessage.objects.filter(outbox_id=lost).delete()

    assert rescan(local, now=NOW + timedelta(hours=9)) == 1
    assert OutboxMessage.objects.get(status=Status.PENDING).pk == lost
    assert row_of(kept).status == Status.PUBLISHED
