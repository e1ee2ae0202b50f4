"""What an operator looks at first: the numbers behind the overview page, `outbox status` and the metrics."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from outbox.dead_letters import discard_dead_letters, requeue_dead_letters
from outbox.holds import wake_due_rows
from outbox.models import KeyHold, MinuteCount, OperatorAction, OutboxMessage, PausedType, Status, Worker
from outbox.queries import depth_and_lag, list_troubles, overview
from smartflow.kernel.clock import utc_now
from tests.admin_rows import EVENT_TYPE, make_row

pytestmark = pytest.mark.django_db
REMINDER = "schedule.reminder.due"


def hold(row):
    type(row).objects.filter(pk=row.pk).update(ready_shard=None)
    return row


def blocked_key(key, *, followers, since):
    head = make_row(Status.DEAD, key=key, last_error="ToolFailed: private detail\nmore")
    for _ in range(followers):
        hold(make_row(key=key))
    KeyHold.objects.create(message_key=key, head_id=head.pk, since=since)
    return head


def test_depth_and_lag_tells_the_states_of_pending_rows_apart():
    now = utc_now()
    make_row(retry_count=1, next_retry_at=now + timedelta(minutes=1), age_seconds=300)
    make_row(age_seconds=90)
    make_row(age_seconds=20, claim_token="t", lease_until=now + timedelta(seconds=9))
    blocked_key("k", followers=2, since=now)
    make_row(Status.PUBLISHED, age_seconds=40)
    make_row(Status.DEAD, discarded_at=now, discard_reason="twin")
    make_row(Status.CONSUMED)
    depth = depth_and_lag(now=now)
    shown = [depth.pending, depth.ready, depth.in_flight, depth.waiting, depth.held, depth.blocked_keys]
    assert [count.value for count in shown] == [5, 2, 1, 1, 2, 1]
    assert (str(depth.published), str(depth.dead)) == ("1", "1")
    assert depth.oldest_pending_seconds == pytest.approx(300, abs=5)
    assert depth.oldest_ready_seconds == pytest.approx(90, abs=5)
    assert depth.oldest_published_seconds == pytest.approx(40, abs=5)


def test_depth_and_lag_counts_no_lease_that_is_over_as_in_flight():
    now = utc_now()
    make_row(claim_token="t", lease_until=now - timedelta(seconds=1))
    assert (depth_and_lag(now=now).ready.value, depth_and_lag(now=now).in_flight.value) == (1, 0)


def test_depth_and_lag_takes_a_requeued_row_for_ready_since_then():
    now = utc_now()
    old = make_row(Status.DEAD, age_seconds=86_400)
    requeue_dead_letters(ids=[old.pk], by="alice", reason="mended", now=now - timedelta(seconds=3))
    assert depth_and_lag(now=now).oldest_ready_seconds == pytest.approx(3, abs=1)
    make_row(age_seconds=50, key="another key")
    assert depth_and_lag(now=now).oldest_ready_seconds == pytest.approx(50, abs=1)
    assert depth_and_lag(now=now).oldest_pending_seconds == pytest.approx(86_400, abs=5)


def test_depth_and_lag_takes_a_row_that_waited_for_ready_since_its_wait_is_over():
    now = utc_now()
    waiting = make_row(age_seconds=600)
    OutboxMessage.objects.filter(pk=waiting.pk).update(ready_shard=None, next_retry_at=now - timedelta(seconds=9))

    assert wake_due_rows(now=now - timedelta(seconds=2)) == 1
    assert depth_and_lag(now=now).oldest_ready_seconds == pytest.approx(2, abs=1)


def test_depth_and_lag_stops_counting_at_the_cap():
    for _ in range(5):
        make_row()
    assert str(depth_and_lag(now=utc_now(), cap=3).pending) == "3+"
    assert str(depth_and_lag(now=utc_now(), cap=5).pending) == "5"


def test_depth_and_lag_has_no_ages_when_nothing_waits():
    depth = depth_and_lag(now=utc_now())
    assert (depth.oldest_pending_seconds, depth.oldest_ready_seconds, depth.oldest_published_seconds) == (None,) * 3
    assert depth.dead.value == 0


def test_overview_shows_blocked_keys_longest_first_with_the_rows_behind_each():
    now = utc_now()
    blocked_key("late", followers=1, since=now - timedelta(minutes=1))
    head = blocked_key("early", followers=3, since=now - timedelta(minutes=9))
    blocked = overview(now=now).blocked
    assert [(key.key, key.behind.value) for key in blocked] == [("early", 3), ("late", 1)]
    assert (blocked[0].head_id, blocked[0].head_type, blocked[0].head_status) == (head.pk, EVENT_TYPE, Status.DEAD)
    assert blocked[0].head_error == "ToolFailed"


def test_overview_groups_open_dead_letters_by_type_and_kind_of_error():
    for detail in ("one", "two"):
        make_row(Status.DEAD, last_error=f"ToolFailed: {detail}")
    make_row(Status.DEAD, biz_type=REMINDER, last_error="unreadable payload: cut")
    make_row(Status.DEAD, last_error="ToolFailed: given up", discarded_at=utc_now(), discard_reason="twin")
    groups = [(group.event_type, group.reason, group.count) for group in overview(now=utc_now()).dead]
    assert groups == [(EVENT_TYPE, "ToolFailed", 2), (REMINDER, "unreadable payload", 1)]


@pytest.mark.parametrize("still_open", [2, 5])
def test_no_number_of_discarded_dead_letters_hides_open_ones(still_open, monkeypatch):
    monkeypatch.setattr("outbox.queries.console.DEAD_SEEN", 3)
    rows = [make_row(Status.DEAD, last_error="ToolFailed: x") for _ in range(still_open + 6)]
    ids = [row.pk for row in rows[still_open:]]
    discard_dead_letters(ids=ids, by="alice", reason="twin", now=utc_now())

    look = overview(now=utc_now())

    assert str(look.depth.dead) == str(still_open)
    assert [(group.reason, group.count) for group in look.dead] == [("ToolFailed", min(3, still_open))]
    assert "dead" in [trouble.name for trouble in list_troubles(look=look)]
    requeue_dead_letters(ids=[rows[-1].pk], by="alice", reason="after all", now=utc_now())
    assert OutboxMessage.objects.get(pk=rows[-1].pk).next_retry_at is None


def test_no_open_dead_letter_can_look_discarded():
    with pytest.raises(IntegrityError), transaction.atomic():
        make_row(Status.DEAD, next_retry_at=utc_now())


def test_overview_has_the_last_hour_without_gaps_and_a_rate_over_a_minute():
    now = utc_now().replace(second=30, microsecond=0)
    this = now.replace(second=0)
    MinuteCount.objects.create(minute=this, published=60)
    MinuteCount.objects.create(minute=this - timedelta(minutes=1), published=120, violations=1)
    MinuteCount.objects.create(minute=this - timedelta(minutes=61), published=999)
    look = overview(now=now)
    assert [minute.start for minute in look.minutes] == [this - timedelta(minutes=60 - n) for n in range(61)]
    assert look.rate("published") == pytest.approx((60 + 120 * 0.5) / 60)
    assert (look.hour_total("published"), look.hour_total("violations")) == (180, 1)


def test_overview_tells_living_workers_from_gone_ones_and_lists_their_partitions():
    now = utc_now()

    def work(name, kind, age, **state):
        at = now - timedelta(seconds=age)
        moments = {"started_at": at, "heartbeat_at": at, "lease_until": at + timedelta(seconds=10)}
        Worker.objects.create(name=name, kind=kind, owner="host:1", state=state, **moments)

    places = [{"topic": "t", "partition": n, "position": 5, "end": 9, "lag": 4} for n in (1, 0)]
    work("consumer host:1", "consumer", 1, partitions=places, consumed=3)
    work("consumer host:2", "consumer", 60, partitions=places)
    work("relay-0", "relay", 2, breaker="open")
    look = overview(now=now)
    assert [(worker.name, worker.is_live) for worker in look.workers] == [
        ("consumer host:1", True),
        ("consumer host:2", False),
        ("relay-0", True),
    ]
    assert look.workers_of("relay")[0].is_breaker_open
    assert [(lag.partition, lag.lag, lag.consumer) for lag in look.partitions] == [
        (0, 4, "consumer host:1"),
        (1, 4, "consumer host:1"),
    ]


def test_overview_names_paused_types_and_what_operators_have_running():
    now = utc_now()
    PausedType.objects.create(event_type=REMINDER, reason="mail is away", by="alice", paused_at=now)
    action = OperatorAction.objects.create(
        verb="requeue", reason="r", by="alice", requested_at=now, state="running", expected_count=9, done_count=4
    )
    OperatorAction.objects.create(verb="prune", reason="r", by="alice", requested_at=now, state="done")
    look = overview(now=now)
    assert [(pause.event_type, pause.reason, pause.by) for pause in look.paused] == [
        (REMINDER, "mail is away", "alice")
    ]
    assert [(running.id, running.done, running.expected) for running in look.actions] == [(action.pk, 4, 9)]


def test_overview_costs_eight_statements(django_assert_num_queries):
    now = utc_now()
    for number in range(12):
        blocked_key(f"k{number}", followers=2, since=now)
    with django_assert_num_queries(8):
        overview(now=now)
