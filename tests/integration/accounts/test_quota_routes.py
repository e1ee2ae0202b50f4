"""GET /user/quota and PATCH /user/me: what users see of their quota, and their time zone."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils.dateparse import parse_datetime

from smartflow.accounts import operations, queries, quota
from smartflow.accounts.contracts import ModelCall, TokenUse
from smartflow.accounts.ledger import NewEntry, record_calls
from smartflow.accounts.models import User
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import NotFound
from tests.factories import make_user

QUOTA = "/api/v1/user/quota"
ME = "/api/v1/user/me"


def call(user, key, tokens, *, purpose="answer", conversation_id="c1", at=None):
    model_call = ModelCall(
        call_id=key,
        purpose=purpose,
        model="m",
        input_tokens=tokens - 1,
        cached_tokens=0,
        output_tokens=1,
        reasoning_tokens=0,
        total_tokens=tokens,
        is_estimated=False,
    )
    entry = NewEntry(key, user.pk, conversation_id, "r1", model_call, at or utc_now())
    record_calls(entries=[entry])


def test_quota_shows_the_whole_limit_before_the_first_use(alice_client, alice):
    data = alice_client.get(QUOTA).json()["data"]

    assert [data[name] for name in ("limit", "granted", "used", "held", "left")] == [100_000, 0, 0, 0, 100_000]
    assert data["used_by_purpose"] == data["used_by_conversation"] == []
    starts_at, resets_at = parse_datetime(data["window_starts_at"]), parse_datetime(data["resets_at"])
    assert starts_at <= utc_now() < resets_at
    assert resets_at - starts_at == timedelta(days=7)
    alice.refresh_from_db()
    assert alice.last_reset_at is None


def test_quota_shows_what_is_used_held_and_granted_and_what_used_it(alice_client, alice):
    now = utc_now()
    quota.hold_tokens(user_id=alice.pk, hold_id="a", tokens=500, expires_at=now + timedelta(minutes=1), now=now)
    quota.charge_tokens(user_id=alice.pk, hold_id="b", tokens=900, now=now)
    quota.grant_tokens(user_id=alice.pk, tokens=2_000, reason="exam", by=alice.pk, now=now)
    quota.adjust_tokens(user_id=alice.pk, tokens=-100, reason="lost answer", by=alice.pk, now=now)
    call(alice, "k1", 600)
    call(alice, "k2", 250, conversation_id="c2")
    call(alice, "k3", 50, purpose="title", conversation_id="c2")

    data = alice_client.get(QUOTA).json()["data"]

    assert {name: data[name] for name in ("limit", "granted", "used", "held", "left", "time_zone")} == {
        "limit": 100_000,
        "granted": 2_000,
        "used": 800,
        "held": 500,
        "left": 100_700,
        "time_zone": "Asia/Shanghai",
    }
    assert data["used_by_purpose"] == [
        {"purpose": "answer", "tokens": 850},
        {"purpose": "title", "tokens": 50},
        {"purpose": "adjust", "tokens": -100},
    ]
    assert data["used_by_conversation"] == [
        {"conversation_id": "c1", "tokens": 600},
        {"conversation_id": "c2", "tokens": 300},
    ]


def test_quota_shows_nothing_of_another_user(bob_client, alice):
    quota.charge_tokens(user_id=alice.pk, hold_id="b", tokens=900, now=utc_now())
    call(alice, "k1", 600)

    data = bob_client.get(QUOTA).json()["data"]

    assert (data["used"], data["left"], data["used_by_purpose"], data["used_by_conversation"]) == (0, 100_000, [], [])


def test_quota_needs_a_token(anonymous):
    assert anonymous.get(QUOTA).json()["status"] == "40009"


def test_get_quota_counts_the_current_window_only(alice):
    now = datetime(2026, 11, 18, 4, tzinfo=UTC)
    quota.charge_tokens(user_id=alice.pk, hold_id="old", tokens=900, now=now)
    call(alice, "k1", 900, at=now)

    old = queries.get_quota(user_id=alice.pk, now=now)
    new = queries.get_quota(user_id=alice.pk, now=now + timedelta(days=7))

    assert (old.used, old.used_by_purpose) == (900, (TokenUse(name="answer", tokens=900),))
    assert (new.used, new.left, new.used_by_purpose, new.used_by_conversation) == (0, 100_000, (), ())
    assert new.window_starts_at == old.resets_at
    quota.charge_tokens(user_id=alice.pk, hold_id="new", tokens=1, now=now + timedelta(days=7))
    opened = queries.get_quota(user_id=alice.pk, now=now + timedelta(days=7))
    assert (opened.used, opened.window_starts_at, opened.resets_at) == (1, new.window_starts_at, new.resets_at)


def test_get_quota_costs_four_queries_and_shows_the_ten_biggest_conversations(alice, django_assert_num_queries):
    for number in range(15):
        call(alice, f"k{number}", 100 + number, conversation_id=f"c{number}")

    with django_assert_num_queries(4):
        view = queries.get_quota(user_id=alice.pk, now=utc_now())

    assert [use.name for use in view.used_by_conversation] == [f"c{number}" for number in range(14, 4, -1)]


def test_get_quota_never_shows_less_than_nothing_left(db):
    user = make_user("zero", token_limit=0)
    quota.charge_tokens(user_id=user.pk, hold_id="b", tokens=5, now=utc_now())
    assert queries.get_quota(user_id=user.pk, now=utc_now()).left == 0


def test_get_quota_of_nobody_is_not_found(db):
    with pytest.raises(NotFound):
        queries.get_quota(user_id=999, now=utc_now())


def test_me_changes_the_time_zone_and_shows_it(alice_client, alice):
    assert alice_client.get(ME).json()["data"]["time_zone"] == "Asia/Shanghai"

    answer = alice_client.patch(ME, {"time_zone": "Europe/Berlin"}, format="json")

    assert (answer.status_code, answer.json()["data"]["time_zone"]) == (200, "Europe/Berlin")
    assert alice_client.get(ME).json()["data"]["time_zone"] == "Europe/Berlin"
    assert alice_client.get(QUOTA).json()["data"]["time_zone"] == "Europe/Berlin"
    assert alice_client.patch(ME, {"time_zone": ""}, format="json").json()["data"]["time_zone"] == "Asia/Shanghai"
    alice.refresh_from_db()
    assert alice.time_zone == ""


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"time_zone": "Mars/Olympus"}, "40005", "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "40005", "time_zone"),
        ({"time_zone": "x" * 10_000}, "40005", "time_zone"),
        ({"time_zone": None}, "40004", "time_zone"),
        ({"time_zone": ["UTC"]}, "40005", "time_zone"),
        ({}, "40004", "time_zone"),
        ({"time_zone": "UTC", "token_limit": 10**9}, "40005", "token_limit"),
    ],
)
def test_me_refuses_what_is_no_time_zone_and_names_the_field(alice_client, alice, body, code, field):
    answer = alice_client.patch(ME, body, format="json")

    assert (answer.status_code, answer.json()["status"], list(answer.json()["fields"])) == (400, code, [field])
    alice.refresh_from_db()
    assert (alice.time_zone, alice.token_limit) == ("", 100_000)


def test_change_time_zone_leaves_the_running_window_alone(alice):
    now = utc_now()
    quota.charge_tokens(user_id=alice.pk, hold_id="a", tokens=5, now=now)
    before = queries.get_quota(user_id=alice.pk, now=now)
    operations.change_time_zone(user_id=alice.pk, time_zone="Pacific/Kiritimati")
    quota.charge_tokens(user_id=alice.pk, hold_id="b", tokens=5, now=now)

    after = queries.get_quota(user_id=alice.pk, now=now)

    assert (after.used, after.window_starts_at, after.resets_at) == (10, before.window_starts_at, before.resets_at)
    assert User.objects.get(pk=alice.pk).last_reset_at == before.window_starts_at
