"""outbox/transports/set_aside.py: what came while a batch was handled is kept in order, and dropped when it is lost."""

from outbox.transports import Delivery
from outbox.transports.set_aside import SetAside


def delivery(offset: int, *, partition: int = 0, value: bytes = b"1234") -> Delivery:
    return Delivery(topic="t", partition=partition, offset=offset, key="k", value=value)


def test_take_returns_the_oldest_and_keeps_the_rest():
    aside = SetAside(most_bytes=100)
    aside.add([delivery(1), delivery(2)])
    aside.add([delivery(3)])

    assert [one.offset for one in aside.take(2)] == [1, 2]
    assert [one.offset for one in aside.take(2)] == [3]
    assert aside.take(2) == []


def test_forget_drops_the_messages_of_lost_partitions_only():
    aside = SetAside(most_bytes=100)
    aside.add([delivery(1), delivery(2, partition=1), delivery(3)])

    aside.forget([("t", 0), ("other", 1)])

    assert [one.offset for one in aside.take(9)] == [2]


def test_is_full_counts_the_bytes_that_are_still_there():
    aside = SetAside(most_bytes=10)
    aside.add([delivery(1), delivery(2)])
    assert not aside.is_full()

    aside.add([delivery(3)])
    assert aside.is_full()

    aside.take(1)
    assert not aside.is_full()
