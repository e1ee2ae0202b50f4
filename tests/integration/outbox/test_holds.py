"""Rows that are not ready: who waits, who is held, and what lets them go, in the order of the key."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox import claim as claim_module
from outbox import relay
from outbox.claim import Share, claim_rows
from outbox.dead_letters import discard_dead_letters, requeue_dead_letters
from outbox.holds import paused_types, release_held_rows, wake_due_rows
from outbox.models import KeyHold, OutboxMessage, PausedType, Status
from outbox.registry import blocking_types
from outbox.shards import shard_of
from smartflow.events import ChatHistoryPersistRequestedV1
from tests.outbox_rows import EVENT_TYPE, NOW, RecordingTransport, append, change, claim, row_of, run_pass

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(seconds=60)


def bury(*ids: int) -> None:
    for pk in ids:
        change(pk, status=Status.DEAD, last_error="broken")


def claimed(**options) -> list[int]:
    return [row.id for row in claim(**options).rows]


def is_held(pk: int) -> bool:
    row = row_of(pk)
    return (row.status, row.ready_shard, row.next_retry_at) == (Status.PENDING, None, None)


@pytest.fixture
def skips_dead(monkeypatch):
    """Let the followers of a dead letter of this type go on."""
    monkeypatch.setattr(ChatHistoryPersistRequestedV1, "blocks_key_when_dead", False)  # and with it the next version
    blocking_types.cache_clear()
    yield
    monkeypatch.undo()
    blocking_types.cache_clear()


def test_a_dead_letter_holds_back_its_key_and_no_other():
    head, *followers = [append("a") for _ in range(4)]
    other = append("b")
    bury(head)

    assert claimed() == [other]
    assert all(is_held(pk) for pk in followers)
    assert KeyHold.objects.values_list("message_key", "head_id").get() == ("a", head)
    assert release_held_rows(now=NOW) == 0


@pytest.mark.usefixtures("skips_dead")
def test_a_dead_letter_of_a_type_that_may_be_skipped_holds_back_nothing():
    head, follower = append("a"), append("a")
    bury(head)

    assert claimed() == [follower]
    assert not KeyHold.objects.exists()


@pytest.mark.parametrize("verb", [requeue_dead_letters, discard_dead_letters])
def test_held_rows_follow_in_order_when_their_dead_letter_is_requeued_or_given_up(verb, clock, alice):
    transport = RecordingTransport()
    head, *followers = [append("a") for _ in range(5)]
    bury(head)
    run_pass(transport, clock)
    late = append("a")
    run_pass(transport, clock)
    assert transport.ids == []

    verb(ids=[head], by="alice", reason="mended", now=NOW)
    run_pass(transport, clock)

    expected = [head] * (verb is requeue_dead_letters) + [*followers, late]
    assert transport.ids == expected
    assert not KeyHold.objects.exists()


def test_rows_stay_held_behind_the_next_dead_letter_of_their_key(clock, alice):
    transport = RecordingTransport()
    first, second, follower = append("a"), append("a"), append("a")
    bury(first, second)
    run_pass(transport, clock)

    discard_dead_letters(ids=[first], by="alice", reason="not needed", now=NOW)
    assert release_held_rows(now=NOW) == 1
    run_pass(transport, clock)

    assert transport.ids == []
    assert is_held(follower)
    assert KeyHold.objects.get().head_id == second


def test_release_held_rows_frees_several_keys_and_leaves_those_that_are_blocked(alice):
    heads = {key: append(key) for key in "abc"}
    followers = {key: [append(key) for _ in range(3)] for key in "abc"}
    bury(*heads.values())
    assert claimed() == []

    discard_dead_letters(ids=[heads["a"], heads["c"]], by="alice", reason="old", now=NOW)

    assert release_held_rows(now=NOW) == 6
    taken = claimed()
    assert [pk for pk in taken if pk in followers["a"]] == followers["a"]
    assert [pk for pk in taken if pk in followers["c"]] == followers["c"]
    assert len(taken) == 6
    assert KeyHold.objects.get().message_key == "b"


def test_release_held_rows_needs_several_turns_for_more_rows_than_its_limit(alice):
    head, *followers = [append("a") for _ in range(8)]
    bury(head)
    claim()
    discard_dead_letters(ids=[head], by="alice", reason="old", now=NOW)

    assert [release_held_rows(now=NOW, limit=3) for _ in range(4)] == [3, 3, 1, 0]
    assert claimed() == followers


def test_rows_of_a_paused_type_are_held_with_what_follows_until_it_is_resumed():
    PausedType.objects.create(event_type=EVENT_TYPE, reason="night", by="alice", paused_at=NOW)
    ids = [append("a"), append("a")]
    share = Share(paused=paused_types())

    assert claim_rows(limit=50, lease_seconds=10, now=NOW, share=share).rows == []
    assert all(is_held(pk) for pk in ids)
    assert KeyHold.objects.get().head_id == ids[0]
    assert release_held_rows(now=NOW) == 0

    PausedType.objects.all().delete()
    assert release_held_rows(now=NOW) == 2
    assert claimed() == ids


def test_many_keys_are_held_or_wait_with_as_few_statements_as_one(clock):
    """Behind dead letters, and behind retries with a moment each."""

    def count_statements(keys):
        OutboxMessage.objects.all().delete()
        heads = {key: append(key) for key in keys}
        followers = {append(key): key for key in keys}
        dead, waiting = keys[::2], keys[1::2]
        bury(*(heads[key] for key in dead))
        for number, key in enumerate(waiting):
            change(heads[key], next_retry_at=LATER + timedelta(microseconds=number))
        with CaptureQueriesContext(connection) as queries:
            assert claimed(limit=200) == []
        for pk, key in followers.items():
            assert row_of(pk).next_retry_at == row_of(heads[key]).next_retry_at
            assert is_held(pk) == (key in dead)
        assert dict(KeyHold.objects.filter(pk__in=keys).values_list("pk", "head_id")) == {k: heads[k] for k in dead}
        return len(queries)

    few = count_statements(["one", "two"])
    assert count_statements([f"key{number}" for number in range(20)]) <= few


def test_a_claim_ends_in_time_and_the_next_goes_on_behind_what_it_has_looked_at(monkeypatch):
    monkeypatch.setattr(claim_module, "LOOKING_SECONDS", 0.0)
    PausedType.objects.create(event_type=EVENT_TYPE, reason="night", by="alice", paused_at=NOW)
    keys = sorted((f"key{number}" for number in range(12)), key=shard_of)
    ids = [append(key) for key in keys]
    share = Share(paused=paused_types())

    first = claim_rows(limit=5, lease_seconds=10, now=NOW, share=share)

    assert (first.rows, first.left_off) == ([], shard_of(keys[4]))
    assert [is_held(pk) for pk in ids] == [True] * 5 + [False] * 7
    claim_rows(limit=5, lease_seconds=10, now=NOW, share=share)
    assert claim_rows(limit=5, lease_seconds=10, now=NOW, share=share).left_off == shard_of(keys[11])
    assert claim_rows(limit=5, lease_seconds=10, now=NOW, share=share).left_off is None
    assert all(is_held(pk) for pk in ids)


def test_keys_that_are_let_go_to_their_last_row_are_not_looked_at_again():
    PausedType.objects.create(event_type=EVENT_TYPE, reason="night", by="alice", paused_at=NOW)
    for key in "aabbccdd":
        append(key)
    claim_rows(limit=50, lease_seconds=10, now=NOW, share=Share(paused=paused_types()))
    PausedType.objects.all().delete()

    left = []
    while release_held_rows(now=NOW, limit=3):
        left.append("".join(KeyHold.objects.order_by("pk").values_list("pk", flat=True)))

    assert left == ["bcd", "cd", ""]
    assert len(claimed()) == 8


def test_a_sweep_lets_go_more_than_a_batch_until_its_time_is_over(clock, monkeypatch):
    monkeypatch.setattr(relay, "BATCH", 2)
    monkeypatch.setattr(relay, "wake_due_rows", lambda now: wake_due_rows(now=now, limit=2))
    for number in range(7):
        change(append(f"key{number}"), next_retry_at=NOW)

    with monkeypatch.context() as short:
        short.setattr(relay, "SWEEPING_SECONDS", 0.0)
        assert not relay.sweep(clock)
    assert OutboxMessage.objects.filter(ready_shard__isnull=False).count() == 2
    assert relay.sweep(clock)
    assert len(claimed()) == 7


def test_wake_due_rows_takes_those_that_waited_longest_first():
    waiting = [append(f"key{number}") for number in range(5)]
    for number, pk in enumerate(waiting):
        change(pk, next_retry_at=LATER - timedelta(seconds=number))

    assert wake_due_rows(now=LATER, limit=2) == 2
    assert set(OutboxMessage.objects.filter(ready_shard__isnull=False).values_list("id", flat=True)) == set(
        waiting[-2:]
    )
    assert wake_due_rows(now=LATER) == 3
    assert wake_due_rows(now=LATER) == 0


def test_a_row_behind_one_that_waits_gets_its_moment_and_follows_it():
    head, follower = append("a"), append("a")
    change(head, next_retry_at=LATER)
    assert claimed() == []

    assert row_of(follower).next_retry_at == LATER
    assert wake_due_rows(now=LATER) == 2
    assert claimed(now=LATER) == [head, follower]
