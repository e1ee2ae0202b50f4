"""Holds, settlements and what they leave in the window; one user, one after another."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError

from smartflow.accounts import quota
from smartflow.accounts.models import TokenHold, TokenWindow
from smartflow.kernel.clock import utc_now
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
