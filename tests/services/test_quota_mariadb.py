"""What the quota and the ledger ask of MariaDB: locks that nobody else waits for, and pages that read a page."""

import threading
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F

from smartflow.accounts import ledger, queries, quota
from smartflow.accounts.contracts import ModelCall
from smartflow.accounts.ledger import NewEntry
from smartflow.accounts.models import TokenLedgerEntry, TokenWindow, User
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from tests.admin_rows import operator_client
from tests.factories import make_user
from tests.racing import run_at_once

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]
NOW = utc_now()
LATER = NOW + timedelta(minutes=1)
USERS, ENTRIES_EACH = 40, 100
LIST = "/admin/accounts/tokenledgerentry/"


@pytest.fixture(autouse=True)
def only_mariadb():
    if connection.vendor != "mysql":
        pytest.skip("DATABASE_URL is not MariaDB's")


@pytest.fixture
def user():
    return make_user("alice", token_limit=1000)


@pytest.fixture
def seeded():
    """Write forty users' calls, and return the users."""
    users = [make_user(f"u{number}") for number in range(USERS)]
    conversations = [new_uuid() for _ in range(200)]
    ledger.record_calls(
        entries=[
            entry(users[number % USERS], conversation_id=conversations[number % 200], minutes=number)
            for number in range(USERS * ENTRIES_EACH)
        ]
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE token_ledger, users")
        cursor.fetchall()
    return users


def entry(user, *, key=None, conversation_id="c1", minutes=0):
    run_id = new_uuid()
    call = ModelCall(call_id=key or f"{run_id}:1", purpose="answer", model="gpt-4o-mini", total_tokens=10)
    return NewEntry(
        entry_key=call.call_id,
        user_id=user.pk,
        conversation_id=conversation_id,
        run_id=run_id,
        call=call,
        created_at=NOW - timedelta(minutes=minutes),
    )


def hold(user, hold_id, tokens=1):
    with transaction.atomic():
        quota.hold_tokens(user_id=user.pk, hold_id=hold_id, tokens=tokens, expires_at=LATER, now=NOW)


def rows_read() -> int:
    """Return how many index entries and rows the server has touched for this connection so far."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for _name, value in cursor.fetchall())


def test_hold_and_settle_do_not_wait_for_a_consumer_that_adds_to_the_users_sum(user):
    hold(user, "before")
    is_locked, may_end = threading.Event(), threading.Event()

    def consume():
        with transaction.atomic():
            User.objects.filter(pk=user.pk).update(token_usage=F("token_usage") + 5)
            is_locked.set()
            return may_end.wait(timeout=20)

    def run():
        assert is_locked.wait(timeout=10)
        hold(user, "a")
        quota.extend_hold(hold_id="a", tokens=5, expires_at=LATER, now=NOW)
        with transaction.atomic():
            quota.settle_hold(user_id=user.pk, hold_id="a", tokens=7, now=NOW)
        may_end.set()
        return "done"

    assert run_at_once(consume, run) == [True, "done"]
    assert TokenWindow.objects.values_list("used_tokens", "held_tokens").get() == (7, 1)


def test_first_uses_and_adjustments_at_once_never_deadlock():
    for turn in range(10):
        newcomer = make_user(f"u{turn}")

        def adjust(newcomer=newcomer):
            quota.adjust_tokens(user_id=newcomer.pk, tokens=3, reason="r", by=newcomer.pk, now=NOW)

        def run(name, newcomer=newcomer):
            hold(newcomer, name)
            with transaction.atomic():
                quota.settle_hold(user_id=newcomer.pk, hold_id=name, tokens=2, now=NOW)

        runs = [lambda name=f"{turn}-{number}": run(name) for number in range(8)]
        assert run_at_once(*runs, *[adjust] * 4) == [None] * 12
        window = TokenWindow.objects.get(user=newcomer)
        assert (window.used_tokens, window.held_tokens) == (8 * 2 + 4 * 3, 0)
    assert not ledger.compare_users().differences
    assert not ledger.compare_windows().differences


def test_one_call_recorded_at_once_has_one_row(user):
    def record():
        with transaction.atomic():
            ledger.record_calls(entries=[entry(user), entry(user, key="same")])

    outcomes = run_at_once(*[record] * 6)

    assert [outcome for outcome in outcomes if outcome is None] == [None]
    assert {type(outcome) for outcome in outcomes if outcome is not None} == {IntegrityError}
    assert TokenLedgerEntry.objects.count() == 2


def test_repairs_at_once_with_consumers_leave_the_sum_of_the_ledger(user):
    def consume():
        with transaction.atomic():
            User.objects.filter(pk=user.pk).update(token_usage=F("token_usage") + 10)
            ledger.record_calls(entries=[entry(user)])

    def repair():
        ledger.repair_user(user_id=user.pk)

    User.objects.filter(pk=user.pk).update(token_usage=77)
    assert run_at_once(*[consume, repair] * 8) == [None] * 16

    ledger.repair_user(user_id=user.pk)
    user.refresh_from_db()
    assert user.token_usage == 80
    assert not ledger.compare_users().differences


@pytest.mark.parametrize("query", ["", "?kind=usage", "?kind=grant", "?q=u7", "?q={conversation}", "?after={middle}"])
def test_ledger_pages_read_no_more_than_they_show(seeded, query):
    client = operator_client("accounts.view_tokenledgerentry")
    middle = TokenLedgerEntry.objects.order_by("pk")[USERS * ENTRIES_EACH // 2]
    url = LIST + query.format(conversation=middle.conversation_id, middle=middle.pk)
    client.get(url)

    before = rows_read()
    response = client.get(url)

    assert response.status_code == 200
    # 51 entries, as many users, the session and the permissions; a scan would be 4,000
    assert rows_read() - before < 400


def test_get_quota_reads_the_entries_of_its_own_window(seeded):
    hold(seeded[7], "a")
    queries.get_quota(user_id=seeded[7].pk, now=NOW)

    before = rows_read()
    view = queries.get_quota(user_id=seeded[7].pk, now=NOW)

    assert (
        sum(use.tokens for use in view.used_by_purpose)
        == 10 * TokenLedgerEntry.objects.filter(user=seeded[7], created_at__gte=view.window_starts_at).count()
    )
    assert rows_read() - before < 10 * ENTRIES_EACH
