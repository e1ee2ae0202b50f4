"""outbox/selection.py: which dead letters a filter means, counted without moving any."""

from datetime import timedelta

import pytest

from outbox.models import Status
from outbox.selection import (
    Selection,
    freeze,
    list_waited_for_ids,
    look_at_dead_letters,
    order_risk,
    preview_dead_letters,
)
from outbox.walk import list_open_dead_types
from smartflow.kernel.counts import BoundedCount
from tests.outbox_rows import NOW, append, change

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(hours=1)


def dead(key: str = "k", **fields) -> int:
    pk = append(key)
    change(pk, **{"status": Status.DEAD, "last_error": "RuntimeError: x", "updated_at": NOW, **fields})
    return pk


def found(**parts) -> tuple[int, ...]:
    return preview_dead_letters(selection=Selection(**parts)).ids


def test_preview_dead_letters_finds_what_fits_each_part():
    plain, other_key, other_error = dead(), dead("other"), dead(last_error="ValueError: y")
    old, discarded = dead(created_at=NOW - timedelta(days=1)), dead(discarded_at=NOW)
    append()
    change(append(), last_error="RuntimeError: x", next_retry_at=LATER)

    assert found() == (plain, other_key, other_error, old)
    assert found(key="other") == (other_key,)
    assert found(error="ValueError") == (other_error,)
    assert found(written_before=NOW) == (old,)
    assert found(up_to_id=other_key) == (plain, other_key)
    assert found(is_discarded=True) == (discarded,)
    assert found(event_type="nothing.of.it") == ()
    assert found(ids=(plain, discarded, 999)) == (plain, discarded)
    assert found(ids=()) == ()


def test_preview_dead_letters_counts_exactly_up_to_the_cap(monkeypatch):
    ids = [dead() for _ in range(5)]
    monkeypatch.setattr("outbox.selection.COUNT_CAP", 5)
    exact = preview_dead_letters(selection=Selection())
    assert (exact.count, exact.ids, exact.is_small) == (BoundedCount(5), tuple(ids), True)
    monkeypatch.setattr("outbox.selection.COUNT_CAP", 4)
    capped = preview_dead_letters(selection=Selection())
    assert (capped.count, capped.is_small) == (BoundedCount(4, is_capped=True), False)


def test_preview_dead_letters_stops_where_few_of_many_rows_fit(monkeypatch):
    first = dead("a")
    for _ in range(4):
        dead()
    last = dead("a")
    monkeypatch.setattr("outbox.selection.LOOK_CAP", 4)
    monkeypatch.setattr(look_at_dead_letters, "__kwdefaults__", {**look_at_dead_letters.__kwdefaults__, "limit": 2})
    preview = preview_dead_letters(selection=Selection(error="RuntimeError"))
    assert preview.count.is_capped
    assert not preview.is_small
    assert first in preview.ids
    assert last not in preview.ids


def test_look_at_dead_letters_reads_downwards_before_a_place():
    ids = [dead() for _ in range(5)]
    look = look_at_dead_letters(selection=Selection(), before_id=ids[4], limit=3)
    assert (look.ids, look.last_id, look.is_end) == ([ids[3], ids[2], ids[1]], ids[1], False)


def test_look_at_dead_letters_passes_over_discarded_rows_and_keeps_the_order_across_types():
    types = ["b.c.d", "a.b.c", "b.c.d", "a.b.c", "z.y.x"]
    ids = []
    for event_type in types:
        ids.append(dead(biz_type=event_type))
        dead(biz_type=event_type, discarded_at=NOW)

    first = look_at_dead_letters(selection=Selection(), limit=3)
    second = look_at_dead_letters(selection=Selection(), after_id=first.last_id, limit=3)
    back = look_at_dead_letters(selection=Selection(), before_id=ids[-1], limit=2)

    assert (first.ids, first.is_end, second.ids, second.is_end) == (ids[:3], False, ids[3:], True)
    assert back.ids == [ids[3], ids[2]]
    assert list_open_dead_types() == sorted(set(types))
    assert found(is_discarded=True, event_type="a.b.c") == (ids[1] + 1, ids[3] + 1)


def test_freeze_binds_a_filter_to_the_rows_that_are_dead_now():
    first = dead()
    frozen = freeze(selection=Selection(), now=NOW)
    dead()
    change(first, updated_at=LATER)

    assert preview_dead_letters(selection=frozen).count.value == 0
    assert freeze(selection=frozen, now=LATER) == frozen


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(ids=(1, 2)),
        Selection(ids=()),
        Selection(event_type="a", key="b", error="c", is_discarded=True, written_before=NOW, parked_before=LATER),
        Selection(up_to_id=0),
    ],
)
def test_selection_survives_its_record(selection):
    assert Selection.from_json(selection.to_json()) == selection


def test_order_risk_counts_rows_with_handled_followers_and_rows_that_are_waited_for():
    overtaken, blocking, alone = dead("a"), dead("b"), dead("c")
    change(append("a"), status=Status.CONSUMED, published_at=NOW, consumed_at=NOW)
    append("b")
    append("d")

    risk = order_risk(preview=preview_dead_letters(selection=Selection()))

    assert (risk.overtaken, risk.waited_for, risk.is_sample) == (1, 1, False)
    assert list_waited_for_ids(ids=[overtaken, blocking, alone]) == [blocking]
