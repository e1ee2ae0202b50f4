"""One user's requests at the same moment: together they never get more than is left, and nothing is counted twice."""

from collections import Counter
from datetime import timedelta

import pytest
from django.db import connections, transaction

from outbox.database_errors import repeat_on_conflict
from smartflow.accounts import quota
from smartflow.accounts.models import TokenHold, TokenLedgerEntry, TokenWindow, User
from smartflow.kernel.clock import utc_now
from tests.factories import make_user
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)
NOW = utc_now()
LATER = NOW + timedelta(minutes=1)
REQUESTS = 200
ROOM = 10
SIZE = 100


@pytest.fixture(autouse=True)
def _patience():
    """Let 200 writers of one SQLite file wait for each other as long as a busy machine needs; what they get counts."""
    options = connections["default"].settings_dict["OPTIONS"]
    if "timeout" not in options:
        yield
        return
    usual, options["timeout"] = options["timeout"], 60
    yield
    options["timeout"] = usual


@pytest.fixture
def user():
    return make_user("alice", token_limit=ROOM * SIZE)


def hold(user, hold_id, tokens=SIZE, now=NOW):
    with transaction.atomic():
        expires_at = now + timedelta(minutes=1)
        quota.hold_tokens(user_id=user.pk, hold_id=hold_id, tokens=tokens, expires_at=expires_at, now=now)
        return hold_id


def settle(user, hold_id, tokens=SIZE, now=NOW):
    with transaction.atomic():
        quota.settle_hold(user_id=user.pk, hold_id=hold_id, tokens=tokens, now=now)


def sums():
    return TokenWindow.objects.values_list("granted_tokens", "used_tokens", "held_tokens").get()


def kinds(outcomes):
    return Counter(type(outcome) for outcome in outcomes)


@pytest.mark.parametrize("is_first_use", [True, False], ids=["first use", "open window"])
def test_hold_tokens_never_gives_more_than_there_is_when_200_ask_at_once(user, is_first_use):
    if not is_first_use:
        hold(user, "before", 0)

    outcomes = run_at_once(*[lambda number=number: hold(user, f"h{number}") for number in range(REQUESTS)])

    assert kinds(outcomes) == {str: ROOM, quota.QuotaExceeded: REQUESTS - ROOM}
    assert sums() == (0, 0, ROOM * SIZE)
    assert {outcome for outcome in outcomes if isinstance(outcome, str)} == set(
        TokenHold.objects.exclude(pk="before").values_list("pk", flat=True)
    )


def test_hold_and_settle_never_pass_the_limit_when_200_runs_come_and_go(user):
    def run(hold_id):
        hold(user, hold_id)
        settle(user, hold_id, SIZE)

    outcomes = run_at_once(*[lambda number=number: run(f"h{number}") for number in range(REQUESTS)])

    assert kinds(outcomes) == {type(None): ROOM, quota.QuotaExceeded: REQUESTS - ROOM}
    assert sums() == (0, ROOM * SIZE, 0)


def test_hold_tokens_of_one_hold_at_once_holds_once(user):
    outcomes = run_at_once(*[lambda: repeat_on_conflict(lambda: hold(user, "same"))] * 8)

    assert "same" in outcomes
    assert sums() == (0, 0, SIZE)


def test_settle_hold_at_once_charges_once(user):
    hold(user, "a")

    assert kinds(run_at_once(*[lambda: settle(user, "a", 70)] * 8)) == {type(None): 8}

    assert sums() == (0, 70, 0)


def test_settle_and_release_at_once_free_the_hold_once(user):
    hold(user, "a")
    late = LATER + timedelta(seconds=1)
    releases = [lambda: quota.release_expired_holds(now=late)] * 4

    outcomes = run_at_once(*[lambda: settle(user, "a", 70, late)] * 4, *releases)

    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert sum(outcomes[4:]) <= 1
    assert sums() == (0, 70, 0)


def test_extend_hold_at_once_never_passes_the_limit(user):
    for number in range(5):
        hold(user, f"h{number}")

    def extend(hold_id):
        quota.extend_hold(hold_id=hold_id, tokens=3 * SIZE, expires_at=LATER, now=NOW)

    outcomes = run_at_once(*[lambda number=number: extend(f"h{number}") for number in range(5)])

    assert kinds(outcomes) == {type(None): 2, quota.QuotaExceeded: 3}
    assert sums() == (0, 0, 9 * SIZE)


def test_hold_tokens_releases_expired_holds_once_when_many_ask_at_once(user):
    for number in range(ROOM):
        hold(user, f"old{number}")
    late = LATER + timedelta(seconds=1)

    outcomes = run_at_once(*[lambda number=number: hold(user, f"new{number}", now=late) for number in range(30)])

    assert kinds(outcomes) == {str: ROOM, quota.QuotaExceeded: 20}
    assert sums() == (0, 0, ROOM * SIZE)


def test_windows_open_once_when_the_zone_changes_meanwhile(user):
    hold(user, "a")
    later = NOW + timedelta(days=20)

    def move():
        User.objects.filter(pk=user.pk).update(time_zone="Pacific/Kiritimati")

    calls = [lambda number=number: hold(user, f"h{number}", 1, later) for number in range(20)]
    assert kinds(run_at_once(*calls[:10], move, *calls[10:])) == {str: 20, type(None): 1}

    windows = list(TokenWindow.objects.order_by("starts_at"))
    assert [window.held_tokens for window in windows] == [SIZE, 20]
    assert windows[1].starts_at >= windows[0].ends_at
    user.refresh_from_db()
    assert user.last_reset_at == windows[1].starts_at


def test_operators_and_runs_at_once_leave_sums_that_add_up(user):
    def grant():
        return quota.grant_tokens(user_id=user.pk, tokens=50, reason="exam week", by=user.pk, now=NOW)

    def adjust():
        return quota.adjust_tokens(user_id=user.pk, tokens=7, reason="lost answer", by=user.pk, now=NOW)

    def run(number):
        hold(user, f"h{number}", 10)
        settle(user, f"h{number}", 9)

    runs = [lambda number=number: run(number) for number in range(10)]
    outcomes = run_at_once(*[grant] * 5, *runs, *[adjust] * 5)

    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert sums() == (250, 90 + 35, 0)
    user.refresh_from_db()
    assert (user.token_usage, TokenLedgerEntry.objects.count()) == (35, 10)


def test_grant_tokens_with_one_key_at_once_gives_once(user):
    def grant():
        return quota.grant_tokens(user_id=user.pk, tokens=50, reason="r", by=user.pk, now=NOW, entry_key="form-1")

    hold(user, "a", 1)
    assert sorted(run_at_once(*[grant] * 4)) == [0, 0, 0, 50]
    assert sums() == (50, 0, 1)
