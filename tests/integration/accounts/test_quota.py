"""Holds, settlements and what they leave in the window; one user, one after another."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError
from django.utils.dateparse import parse_datetime

from smartflow.accounts import quota
from smartflow.accounts.jobs import release_expired_holds
from smartflow.accounts.models import TokenHold, TokenLedgerEntry, TokenWindow
from smartflow.api.exception_handler import error_response
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import NotFound
from tests.factories import make_user

NOW = utc_now()
LATER = NOW + timedelta(minutes=1)


@pytest.fixture
def user(db):
    return make_user("alice", token_limit=1000)


def hold(user, hold_id, tokens, now=NOW):
    quota.hold_tokens(user_id=user.pk, hold_id=hold_id, tokens=tokens, expires_at=now + timedelta(minutes=1), now=now)


def sums(user):
    return TokenWindow.objects.values_list("granted_tokens", "used_tokens", "held_tokens").get(user=user)


def test_hold_tokens_holds_until_the_limit(user):
    hold(user, "a", 600)
    hold(user, "b", 400)
    with pytest.raises(quota.QuotaExceeded) as refusal:
        hold(user, "c", 1)
    assert sums(user) == (0, 0, 1000)
    extra = refusal.value.extra
    assert (extra["limit"], extra["used"], extra["held"], extra["left"]) == (1000, 0, 1000, 0)


def test_quota_exceeded_is_answered_with_what_is_left_and_when_it_resets(user):
    hold(user, "a", 600)
    quota.charge_tokens(user_id=user.pk, hold_id="b", tokens=150, now=NOW)
    quota.grant_tokens(user_id=user.pk, tokens=50, reason="r", by=user.pk, now=NOW)
    with pytest.raises(quota.QuotaExceeded) as refusal:
        hold(user, "c", 301)

    status, body, headers = error_response(refusal.value)

    window = TokenWindow.objects.get()
    assert (status, body["status"]) == (429, "40051")
    numbers = {name: body[name] for name in ("limit", "granted", "used", "held", "left")}
    assert numbers == {"limit": 1000, "granted": 50, "used": 150, "held": 600, "left": 300}
    assert parse_datetime(body["resets_at"]) == window.ends_at
    assert 0 <= int(headers["Retry-After"]) - (window.ends_at - NOW).total_seconds() < 1
    local = window.ends_at.astimezone(ZoneInfo("Asia/Shanghai"))
    assert body["info"] == (
        "This needs about 301 tokens, and of this week's 1050 there are 300 left."
        f" The quota starts anew on {local:%Y-%m-%d} at 00:00."
    )


def test_quota_exceeded_speaks_the_language_of_whoever_is_answered(user, monkeypatch):
    with pytest.raises(quota.QuotaExceeded) as refusal:
        hold(user, "a", 2000)
    monkeypatch.setattr(quota, "gettext", lambda text: "%(left)d übrig")

    assert error_response(refusal.value)[1]["info"] == "1000 übrig"


def test_a_limit_of_zero_allows_nothing(db):
    nobody = make_user("bob", token_limit=0)
    with pytest.raises(quota.QuotaExceeded):
        hold(nobody, "a", 1)


def test_hold_tokens_of_nobody_is_not_found(db):
    with pytest.raises(NotFound):
        quota.hold_tokens(user_id=999_999, hold_id="a", tokens=1, expires_at=LATER, now=NOW)


def test_a_run_is_charged_to_the_window_it_was_held_in(user):
    hold(user, "a", 600)
    first = TokenWindow.objects.get()
    later = first.ends_at + timedelta(hours=1)
    hold(user, "b", 1000, now=later)
    quota.settle_hold(user_id=user.pk, hold_id="a", tokens=250, now=later)

    first.refresh_from_db()
    second = TokenWindow.objects.exclude(pk=first.pk).get()
    assert (first.used_tokens, first.held_tokens) == (250, 0)
    assert (second.used_tokens, second.held_tokens, second.starts_at) == (0, 1000, first.ends_at)


def test_extend_hold_keeps_an_expired_hold_that_nobody_released(user):
    hold(user, "a", 100)
    quota.extend_hold(hold_id="a", tokens=200, expires_at=LATER + timedelta(minutes=5), now=LATER)
    assert quota.release_expired_holds(now=LATER) == 0
    assert sums(user) == (0, 0, 200)


def test_release_expired_holds_takes_windows_of_many_users_and_leaves_live_ones(db):
    users = [make_user(f"u{number}", token_limit=1000) for number in range(3)]
    for user in users:
        hold(user, f"old{user.pk}", 10)
        hold(user, f"new{user.pk}", 20, now=LATER)
    assert quota.release_expired_holds(now=LATER) == 3
    assert quota.release_expired_holds(now=LATER) == 0
    assert [sums(user) for user in users] == [(0, 0, 20)] * 3


def test_release_job_releases_what_expired(user):
    quota.hold_tokens(user_id=user.pk, hold_id="a", tokens=10, expires_at=NOW - timedelta(hours=1), now=NOW)
    release_expired_holds()
    assert sums(user) == (0, 0, 0)


@pytest.mark.parametrize("change", [quota.grant_tokens, quota.adjust_tokens])
@pytest.mark.parametrize("tokens", [0, -5, 2**31])
def test_operators_changes_without_effect_are_refused(user, change, tokens):
    with pytest.raises(quota.NothingToChange) as refusal:
        change(user_id=user.pk, tokens=tokens, reason="r", by=user.pk, now=NOW)
    assert list(refusal.value.fields) == ["tokens"]
    assert not TokenLedgerEntry.objects.exists()


def test_hold_and_settle_cost_few_statements(user, django_assert_num_queries):
    hold(user, "before", 1)
    with django_assert_num_queries(3):
        hold(user, "a", 5)
    with django_assert_num_queries(5):
        quota.settle_hold(user_id=user.pk, hold_id="a", tokens=5, now=NOW)


def test_hold_tokens_changes_nothing_when_the_hold_exists(user):
    hold(user, "a", 600)
    hold(user, "a", 600)
    assert sums(user) == (0, 0, 600)


def test_settle_hold_charges_once_and_frees_the_rest(user):
    hold(user, "a", 600)
    for _ in range(2):
        quota.settle_hold(user_id=user.pk, hold_id="a", tokens=250, now=NOW)
    assert sums(user) == (0, 250, 0)


def test_settle_hold_charges_a_hold_that_was_released(user):
    hold(user, "a", 600)
    assert quota.release_expired_holds(now=LATER) == 1
    assert sums(user) == (0, 0, 0)
    quota.settle_hold(user_id=user.pk, hold_id="a", tokens=250, now=LATER)
    assert sums(user) == (0, 250, 0)


def test_settle_hold_charges_a_run_that_never_held(user):
    for _ in range(2):
        quota.settle_hold(user_id=user.pk, hold_id="a", tokens=250, now=NOW)
    assert sums(user) == (0, 250, 0)


def test_charge_tokens_charges_once_also_beyond_the_limit(user):
    for _ in range(2):
        quota.charge_tokens(user_id=user.pk, hold_id="title", tokens=1200, now=NOW)
    assert sums(user) == (0, 1200, 0)


def test_hold_tokens_releases_expired_holds_before_it_refuses(user):
    hold(user, "a", 1000)
    hold(user, "b", 700, now=LATER)
    assert sums(user) == (0, 0, 700)


def test_extend_hold_sets_a_new_total(user):
    hold(user, "a", 100)
    for tokens in (400, 400, 300):
        quota.extend_hold(hold_id="a", tokens=tokens, expires_at=LATER, now=NOW)
    assert sums(user) == (0, 0, 300)
    assert TokenHold.objects.get(pk="a").expires_at == LATER


def test_extend_hold_leaves_the_old_hold_when_refused(user):
    hold(user, "a", 100)
    with pytest.raises(quota.QuotaExceeded):
        quota.extend_hold(hold_id="a", tokens=1001, expires_at=LATER, now=NOW)
    assert sums(user) == (0, 0, 100)


def test_extend_hold_raises_when_the_hold_is_gone(user):
    hold(user, "a", 100)
    quota.settle_hold(user_id=user.pk, hold_id="a", tokens=1, now=NOW)
    for hold_id in ("a", "unknown"):
        with pytest.raises(quota.HoldGone):
            quota.extend_hold(hold_id=hold_id, tokens=200, expires_at=LATER, now=NOW)


@pytest.mark.django_db(transaction=True)
def test_hold_tokens_refuses_to_work_outside_a_transaction():
    alice = make_user("alice")
    with pytest.raises(TransactionManagementError):
        hold(alice, "a", 1)
    with transaction.atomic():
        hold(alice, "a", 1)
