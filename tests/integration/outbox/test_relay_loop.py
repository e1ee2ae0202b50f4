"""outbox/relay_loop.py: slots, fairness, rest, and what a relay costs while nothing happens. Time is stepped."""

import logging
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox import claim, jobs, relay, relay_loop, wakeup
from outbox.holds import wake_due_rows
from outbox.models import KeyHold, MinuteCount, OutboxMessage, PausedType, Status, Worker
from outbox.shards import shard_of
from outbox.tally import TALLY
from outbox.transports import PublishFailure
from outbox.wakeup import WakeUps
from outbox.workers import GONE_SECONDS, beat, free_slots, leave, take_slot
from smartflow.timetable import TIMETABLE
from tests.outbox_rows import EVENT_TYPE, NOW, RecordingTransport, append, change, row_of

pytestmark = pytest.mark.django_db
AWAY = PublishFailure(reason="_MSG_TIMED_OUT", is_permanent=False)


class Time:
    """The event that ends a pass: whoever waits for it lets the time go by."""

    def __init__(self, clock):
        self.clock = clock
        self.seconds = 1000.0
        self.is_over = False

    def __call__(self):
        return self.seconds

    def is_set(self):
        return self.is_over

    def set(self):
        self.is_over = True

    def wait(self, seconds):
        self.seconds += seconds
        self.clock.advance(seconds)
        return self.is_over


@pytest.fixture
def time(clock, monkeypatch):
    stepped = Time(clock)
    monkeypatch.setattr(relay_loop, "monotonic", stepped)
    return stepped


@pytest.fixture
def transport():
    return RecordingTransport()


@pytest.fixture
def history():
    return relay_loop.History()


@pytest.fixture
def run(transport, clock, time, history):
    """Return a function that runs one pass on a free slot and tells whether there was one."""
    memory = relay.Memory(breaker=relay.Breaker(monotonic=time))

    def start(*, seconds=10.0, batch_size=50, slots=1):
        bounds = relay.Bounds(batch_size=batch_size, lease_seconds=10, publish_seconds=5)
        worker = relay.Relay(transport=transport, clock=clock, bounds=bounds, memory=memory, name="here:1")
        terms = relay_loop.Terms(slots=slots, seconds=seconds, redis_url="", stop=time)
        return relay_loop.run_free_slot(relay=worker, history=history, terms=terms)

    return start


def test_a_pass_takes_a_free_slot_relays_and_gives_it_back(run, transport):
    pk = append()

    assert run(seconds=1)

    assert transport.ids == [pk]
    slot = Worker.objects.get()
    assert (slot.name, slot.kind, slot.owner) == ("relay-0", Worker.Kind.RELAY, "")
    assert slot.state["published"] == 0  # of the first heartbeat; the next pass's says more
    assert slot.state | {"since": ""} == {
        "slot": 0,
        "slots": 1,
        "shards": [0, 63],
        "breaker": "closed",
        "published": 0,
        "since": "",
        "counted_to": pk,
    }


def test_a_relay_says_that_the_breaker_is_open_while_the_broker_is_away(run, transport):
    pk = append()
    transport.failures[pk], transport.is_away = AWAY, True

    run(seconds=10)
    assert Worker.objects.get().state["breaker"] == "open"

    transport.failures, transport.is_away = {}, False
    run(seconds=10)
    assert Worker.objects.get().state["breaker"] == "closed"
    assert transport.ids == [pk]


def test_a_relay_says_so_too_while_the_broker_refuses_a_topic(run, transport):
    pk, _other = append("a"), append("b")
    change(pk, topic="not a topic!")
    transport.failures[pk] = PublishFailure(reason="TOPIC_EXCEPTION", is_permanent=False, is_of_topic=True)

    run(seconds=10)

    assert Worker.objects.get().state["breaker"] == "open"


def test_a_pass_asks_once_and_leaves_when_every_slot_is_taken(run):
    take_slot(slot=0, owner="there", now=NOW, lease_seconds=10)

    with CaptureQueriesContext(connection) as queries:
        assert not run()
    assert len(queries) == 1


def test_a_pass_asks_nothing_when_this_process_has_every_slot(run, history):
    history.running.add(0)

    with CaptureQueriesContext(connection) as queries:
        assert not run()
    assert len(queries) == 0


def test_a_slot_is_taken_over_when_its_relay_was_not_heard_of_for_its_lease(run, clock, transport):
    pk = append()
    take_slot(slot=0, owner="killed", now=NOW, lease_seconds=GONE_SECONDS)

    clock.advance(GONE_SECONDS - 0.1)
    assert not run(seconds=1)
    clock.advance(0.2)
    assert run(seconds=1)

    assert transport.ids == [pk]


def test_a_pass_ends_when_its_slot_was_taken_over_meanwhile(run, time, transport):
    transport.during_publish = lambda: Worker.objects.update(owner="another")
    append()

    started = time.seconds
    run(seconds=60)

    assert time.seconds - started < 5


def test_a_pass_ends_at_once_when_the_process_is_told_to_stop(run, time, transport):
    transport.during_publish = time.set
    append()

    started = time.seconds
    assert run(seconds=60)

    assert time.seconds == started


def test_a_slot_is_free_at_once_when_the_database_cut_its_pass_off(run, transport, monkeypatch):
    append()
    with monkeypatch.context() as broken:
        broken.setattr(relay_loop, "sweep", lambda clock: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run()

    assert run(seconds=1)
    assert len(transport.ids) == 1


def test_threads_that_give_back_slots_at_once_give_back_each_of_them_once(history, monkeypatch):
    relay_ = SimpleNamespace(clock=lambda: NOW)
    history.owners.update({0: "first", 1: "second"})
    left = []

    def leave_while_another_thread_does_the_same(*, name, owner, now):
        left.append((name, owner))
        relay_loop._leave_what_was_cut_off(relay_, history)

    monkeypatch.setattr(relay_loop, "leave", leave_while_another_thread_does_the_same)
    relay_loop._leave_what_was_cut_off(relay_, history)

    assert sorted(left) == [("relay-0", "first"), ("relay-1", "second")]


def test_slots_are_disjoint_and_one_owners_each():
    assert free_slots(slots=3, now=NOW) == [0, 1, 2]
    assert take_slot(slot=1, owner="a", now=NOW, lease_seconds=10)
    assert not take_slot(slot=1, owner="a", now=NOW, lease_seconds=10)
    assert not take_slot(slot=1, owner="b", now=NOW, lease_seconds=10)
    assert free_slots(slots=3, now=NOW) == [0, 2]
    leave(name="relay-1", owner="b", now=NOW)
    assert free_slots(slots=3, now=NOW) == [0, 2]
    leave(name="relay-1", owner="a", now=NOW)
    assert take_slot(slot=1, owner="b", now=NOW, lease_seconds=10)


def test_beat_tells_that_a_slot_is_anothers_and_brings_a_consumer_back():
    take_slot(slot=0, owner="a", now=NOW, lease_seconds=10)
    assert beat(name="relay-0", kind="relay", owner="a", state={"slot": 0}, now=NOW)
    assert not beat(name="relay-0", kind="relay", owner="b", state={}, now=NOW)

    for _ in range(2):
        assert beat(name="consumer h:1", kind="consumer", owner="h:1", state={}, now=NOW)
        leave(name="consumer h:1", owner="h:1", now=NOW)
    assert list(Worker.objects.values_list("name", flat=True)) == ["relay-0"]


def test_beat_adds_what_was_counted_to_the_minute_and_keeps_it_when_the_database_fails(monkeypatch):
    TALLY.take()
    for amount in (3, 4):
        TALLY.add("published", amount)
        beat(name="consumer h:1", kind="consumer", owner="h:1", state={}, now=NOW)
    TALLY.add("dead")
    with monkeypatch.context() as broken:
        broken.setattr("outbox.workers._add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            beat(name="consumer h:1", kind="consumer", owner="h:1", state={}, now=NOW)

    beat(name="consumer h:1", kind="consumer", owner="h:1", state={}, now=NOW + timedelta(minutes=1))

    assert list(MinuteCount.objects.order_by("minute").values_list("minute", "published", "dead")) == [
        (NOW, 7, 0),
        (NOW + timedelta(minutes=1), 0, 1),
    ]


def test_a_hot_shard_lets_the_others_have_their_turn(run, transport):
    hot = [append("hot") for _ in range(20)]
    others = [append(f"key{number}") for number in range(30)]

    run(seconds=1, batch_size=5)

    behind = [pk for pk in others if shard_of(row_of(pk).message_key) > shard_of("hot")]
    assert [pk for pk in transport.ids if pk in hot] == hot
    assert sorted(transport.ids) == sorted(hot + others)
    assert transport.ids.index(behind[0]) < transport.ids.index(hot[-1])


def test_a_long_queue_that_is_held_delays_neither_the_other_types_nor_the_sweep(run, time, transport, monkeypatch):
    """Claims and sweeps that end before they are through go on at once, without a rest."""
    monkeypatch.setattr(claim, "LOOKING_SECONDS", 0.0)
    monkeypatch.setattr(relay, "SWEEPING_SECONDS", 0.0)
    monkeypatch.setattr(relay, "BATCH", 1)
    monkeypatch.setattr(relay, "wake_due_rows", lambda now: wake_due_rows(now=now, limit=1))
    PausedType.objects.create(event_type="paused.type", reason="night", by="alice", paused_at=NOW)
    held = [append(f"key{number}") for number in range(12)]
    OutboxMessage.objects.filter(pk__in=held).update(biz_type="paused.type")
    flowing = [append(f"flowing{number}") for number in range(6)]
    change(flowing[0], next_retry_at=NOW)
    change(flowing[1], next_retry_at=NOW)

    run(seconds=0.5, batch_size=2)

    assert sorted(transport.ids) == flowing
    assert KeyHold.objects.count() == 12
    assert {row_of(pk).published_at for pk in flowing} == {NOW}


def test_a_pass_goes_on_at_the_shard_where_the_one_before_it_ended(run, transport, time):
    """Passes so short that each takes one batch: otherwise the first shards would have every turn."""
    first, other = sorted(("key1", "key2"), key=shard_of)
    for _ in range(12):
        append(first)
    behind = append(other)
    transport.during_publish = lambda: time.wait(1)

    run(seconds=1, batch_size=4)
    assert behind not in transport.ids
    run(seconds=1, batch_size=4)

    assert behind in transport.ids


def test_rows_whose_time_comes_during_a_pass_are_published_within_about_a_second(run, transport):
    pk = append()
    change(pk, next_retry_at=NOW + timedelta(seconds=3))

    run(seconds=5)

    assert transport.ids == [pk]
    assert row_of(pk).published_at < NOW + timedelta(seconds=4.5)


def test_a_pass_counts_what_was_written_and_published(run, history):
    append()
    run(seconds=1)
    for _ in range(3):
        append()
    TALLY.take()
    MinuteCount.objects.all().delete()

    run(seconds=12)

    counts = MinuteCount.objects.get()
    assert (counts.written, counts.published) == (3, 3)
    assert history.published == 4


def test_a_pass_counts_on_when_every_row_was_pruned(run, history):
    append()
    run(seconds=1)
    OutboxMessage.objects.all().delete()
    run(seconds=6)
    TALLY.take()

    run(seconds=6)

    assert "written" not in TALLY.take()
    assert Worker.objects.get().state["counted_to"] is not None


def test_what_was_written_is_counted_once_when_the_slot_goes_from_process_to_process(run, history):
    run(seconds=1)
    TALLY.take()
    MinuteCount.objects.all().delete()
    append()
    run(seconds=1)
    for number in range(12):
        for _ in range(5):
            append(f"key{number}")
        history.__dict__.update(relay_loop.History().__dict__)  # another process, which knows nothing
        run(seconds=8)

    run(seconds=8)

    counts = MinuteCount.objects.all()
    assert sum(each.written for each in counts) + TALLY.take().get("written", 0) == 60


@pytest.mark.parametrize("slots", [1, 4, 16])
def test_a_pause_is_seen_within_about_a_second_however_many_relays_there_are(run, time, transport, clock, slots):
    """The relay is busy all the time: each batch takes a quarter of a second, and the next row is there then."""
    key = next(f"key{number}" for number in range(1000) if shard_of(f"key{number}") == 0)
    started = time.seconds

    def work():
        time.wait(0.25)
        append(key)
        if time.seconds - started > 2:
            PausedType.objects.get_or_create(
                event_type=EVENT_TYPE, defaults={"reason": "r", "by": "alice", "paused_at": NOW}
            )

    transport.during_publish = work
    append(key)

    run(seconds=30, slots=slots)

    assert 2 <= len(transport.ids) * 0.25 <= 3.5


def test_relays_sweep_each_in_its_turn(run, clock, time, monkeypatch):
    moments = []
    monkeypatch.setattr(relay_loop, "sweep", lambda clock: moments.append(time.seconds) or True)
    for slot in range(2):
        take_slot(slot=slot, owner="other", now=clock.now, lease_seconds=100)
    started = time.seconds

    run(seconds=8, slots=3)

    assert [round(moment - started) for moment in moments] == [2, 5]


def test_an_idle_relay_and_its_jobs_ask_at_most_ten_queries_a_second(run, history, monkeypatch):
    """Without Redis, where a relay has to look by itself; with hints it looks once a second."""
    seconds = 60
    with CaptureQueriesContext(connection) as of_the_relay:
        run(seconds=seconds)
    monkeypatch.setattr(jobs, "_history", history)
    history.running.add(0)  # as it is for the ticks that come while the pass runs
    total = len(of_the_relay) / seconds
    for entry in TIMETABLE.values():
        if entry["task"].startswith("outbox."):
            with CaptureQueriesContext(connection) as of_the_job:
                getattr(jobs, entry["task"].rsplit(".", 1)[1])()
            total += len(of_the_job) / entry["schedule"]

    assert total <= 10
    assert len(of_the_relay) / seconds <= 9


def test_a_relay_needs_few_statements_for_a_full_batch(run, transport):
    """All of them, also those that begin and end transactions: at most one for a hundred messages."""
    for number in range(1500):
        append(f"key{number // 10}")

    def count(batches):
        with CaptureQueriesContext(connection) as queries:
            worker = relay.Relay(
                transport=transport,
                clock=lambda: NOW,
                bounds=relay.Bounds(batch_size=500, lease_seconds=10, publish_seconds=5),
            )
            assert [worker.run_batch()[1].published for _ in range(batches)] == [500] * batches
        return len(queries)

    assert count(1) <= 5
    assert count(2) <= 10
    assert OutboxMessage.objects.filter(status=Status.PUBLISHED).count() == 1500


def test_rest_waits_longer_and_longer_and_begins_anew_after_work(time):
    wakeups = WakeUps(shards=(0, 63), stop=time, url="")
    waits = []
    for _ in range(8):
        before = time.seconds
        wakeups.rest(longest_seconds=1.0)
        waits.append(round(time.seconds - before, 3))
    wakeups.note_work()
    before = time.seconds
    wakeups.rest(longest_seconds=1.0)

    assert waits == [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.25]
    assert round(time.seconds - before, 3) == 0.005


def test_rest_falls_back_to_looking_often_when_redis_is_away_and_says_so_once(time, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="outbox.wakeup")
    monkeypatch.setattr(wakeup, "monotonic", time)
    wakeups = WakeUps(shards=(0, 63), stop=time, url="redis://127.0.0.1:1/0")
    started = time.seconds
    for _ in range(40):
        wakeups.rest(longest_seconds=1.0)

    assert time.seconds - started < 40 * wakeup.LONGEST_POLL_SECONDS
    assert [record.getMessage() for record in caplog.records] == ["Hints do not reach the relay; it looks more often"]
    wakeups.close()


def test_a_hint_for_its_shard_wakes_a_relay_and_no_other_does(time):
    """Through the code that reads hints; that Redis carries them is shown on the real one."""
    wakeups = WakeUps(shards=(10, 20), stop=time, url="")

    assert [wakeups._is_for_me({"data": data}) for data in (b"9,21", b"3,20", b"*", b"10")] == [
        False,
        True,
        True,
        True,
    ]
    assert not wakeups._is_for_me(None)
