"""outbox/transports/stall.py: a stall is the same message waiting through a whole window of empty polls."""

import pytest

from outbox.transports.stall import Offsets, StallWatch

WINDOW = 10.0
FIRST, SECOND = ("topic", 0), ("topic", 1)


def offsets(*, committed=0, end=0, low=0):
    return Offsets(low=low, end=end, committed=committed)


class Broker:
    """What the watch sees when it looks; `seen` is none while the broker does not answer."""

    def __init__(self) -> None:
        self.seen = {FIRST: offsets(), SECOND: offsets()}
        self.looks = 0

    def look(self):
        self.looks += 1
        return self.seen


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def watch(broker):
    made = StallWatch(window_seconds=WINDOW, look=broker.look)
    made.note_owned([FIRST])
    return made


def seconds_to_stall(watch, *, patience=60, change=lambda _second: None):
    """Poll in vain, a second each; none when no stall is called."""
    for second in range(1, patience + 1):
        change(second)
        if watch.is_stalled(silent_seconds=1.0):
            return second
    return None


def test_is_stalled_within_a_look_and_a_window_when_a_message_waits(watch, broker):
    broker.seen[FIRST] = offsets(committed=3, end=4)

    assert WINDOW < seconds_to_stall(watch) <= WINDOW + 2
    assert broker.looks <= 6


def test_is_stalled_counts_from_the_moment_the_message_was_seen(watch, broker):
    def change(second):
        if second == 30:
            broker.seen[FIRST] = offsets(committed=3, end=4)

    assert 30 + WINDOW <= seconds_to_stall(watch, change=change) <= 32 + WINDOW


def test_is_stalled_never_when_nothing_waits(watch, broker):
    broker.seen[FIRST] = offsets(committed=4, end=4)

    assert seconds_to_stall(watch) is None


def test_is_stalled_when_the_group_never_committed(watch, broker):
    broker.seen[FIRST] = offsets(committed=-1001, end=1)

    assert seconds_to_stall(watch)


def test_is_stalled_never_when_what_was_not_read_is_no_longer_kept(watch, broker):
    broker.seen[FIRST] = offsets(committed=3, low=9, end=9)

    assert seconds_to_stall(watch) is None


def test_is_stalled_never_when_the_messages_arrived_and_are_not_acknowledged(watch, broker):
    broker.seen[FIRST] = offsets(committed=0, end=2)
    watch.note_message(FIRST, 0)
    watch.note_message(FIRST, 1)

    assert seconds_to_stall(watch) is None


def test_is_stalled_when_unacknowledged_messages_were_lost_and_came_back(watch, broker):
    broker.seen[FIRST] = offsets(committed=0, end=1)
    watch.note_message(FIRST, 0)
    watch.note_lost([FIRST])
    watch.note_owned([FIRST])

    assert seconds_to_stall(watch)


def test_is_stalled_never_while_messages_keep_arriving(watch, broker):
    def change(second):
        broker.seen[FIRST] = offsets(committed=0, end=second + 2)
        watch.note_message(FIRST, second)

    assert seconds_to_stall(watch, change=change) is None


def test_is_stalled_when_one_partition_is_deaf_and_another_is_not(watch, broker):
    watch.note_owned([SECOND])

    def change(second):
        watch.note_message(SECOND, second)
        broker.seen = {FIRST: offsets(end=1), SECOND: offsets(end=second + 1)}

    assert seconds_to_stall(watch, change=change) <= WINDOW + 2


def test_is_stalled_never_while_the_broker_is_away(watch, broker):
    broker.seen[FIRST] = offsets(end=1)
    held = broker.seen

    def change(second):
        broker.seen = None if second % 8 == 0 else held

    assert seconds_to_stall(watch, change=change) is None


def test_is_stalled_leaves_the_partitions_of_others_alone(watch, broker):
    broker.seen[SECOND] = offsets(end=5)

    assert seconds_to_stall(watch) is None


def test_is_stalled_when_the_member_owns_nothing_and_nobody_fetches(watch, broker):
    watch.note_lost([FIRST])
    broker.seen[SECOND] = offsets(end=5)

    assert seconds_to_stall(watch) <= WINDOW + 2


def test_is_stalled_never_when_the_member_owns_nothing_and_others_move_on(watch, broker):
    watch.note_lost([FIRST])

    def change(second):
        broker.seen[SECOND] = offsets(committed=second // 6, end=100)

    assert seconds_to_stall(watch, change=change) is None


def test_is_stalled_does_not_count_the_time_between_polls(watch, broker):
    broker.seen[FIRST] = offsets(end=1)

    assert not any(watch.is_stalled(silent_seconds=0.0) for _ in range(1000))
    assert broker.looks == 0
