"""outbox/commit_order.py: a lower id behind a higher one of its key is a violation."""

from outbox.commit_order import CommitOrder


def test_note_finds_a_lower_id_behind_a_higher_one_of_its_key_only():
    order = CommitOrder()

    assert order.note([("a", 1), ("b", 5), ("a", 4), ("b", 3)]) == [("b", 3, 5)]
    assert order.note([("a", 2), ("c", 1), ("b", 6)]) == [("a", 2, 4)]
    assert order.note([("a", 5)]) == []


def test_note_forgets_the_keys_that_were_not_heard_of_for_longest():
    order = CommitOrder(limit=2)
    order.note([("a", 9), ("b", 9), ("a", 10), ("c", 9)])

    assert order.note([("b", 1)]) == []
    assert order.note([("c", 1)]) == [("c", 1, 9)]
