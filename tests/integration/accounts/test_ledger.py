"""The ledger: appended in bulk, once; and the sums that are compared with it."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F

from smartflow.accounts import ledger, operations, quota
from smartflow.accounts.contracts import EntryKind, ModelCall, SumDifference
from smartflow.accounts.ledger import NewEntry
from smartflow.accounts.models import TokenLedgerEntry, TokenWindow, User
from smartflow.kernel.clock import utc_now
from tests.factories import make_user

NOW = utc_now()


def entry(user, key, tokens=10, **values):
    call = ModelCall(
        call_id=key,
        purpose="answer",
        model="gpt-4o-mini",
        input_tokens=7,
        cached_tokens=4,
        output_tokens=3,
        reasoning_tokens=1,
        total_tokens=tokens,
        is_estimated=True,
    )
    return NewEntry(
        entry_key=key,
        user_id=user.pk,
        conversation_id=values.get("conversation_id", "c1"),
        run_id=values.get("run_id", "r1"),
        call=call,
        created_at=NOW,
        request_id="req-1",
    )


def record(user, *entries):
    ledger.record_calls(entries=entries)
    operations.add_token_usage(tokens_by_user={user.pk: sum(row.call.total_tokens for row in entries)})


def all_differences(compare, limit=500):
    found, after_id = [], 0
    while after_id is not None:
        step = compare(after_id=after_id, limit=limit)
        found += step.differences
        after_id = step.last_id
    return found


def test_record_calls_writes_every_column(alice):
    ledger.record_calls(entries=[entry(alice, "k1")])

    row = TokenLedgerEntry.objects.values().get()
    del row["id"]
    assert row == {
        "entry_key": "k1",
        "user_id": alice.pk,
        "conversation_id": "c1",
        "run_id": "r1",
        "kind": "usage",
        "purpose": "answer",
        "model": "gpt-4o-mini",
        "input_tokens": 7,
        "cached_tokens": 4,
        "output_tokens": 3,
        "reasoning_tokens": 1,
        "total_tokens": 10,
        "is_estimated": True,
        "reason": "",
        "actor_id": None,
        "request_id": "req-1",
        "window_id": None,
        "created_at": NOW,
    }


def test_record_calls_costs_one_statement_for_a_thousand(alice, django_assert_num_queries):
    entries = [entry(alice, f"k{number}") for number in range(1000)]

    with django_assert_num_queries(2):
        known = ledger.list_known_entries(entry_keys=[row.entry_key for row in entries])
        ledger.record_calls(entries=[row for row in entries if row.entry_key not in known])

    assert TokenLedgerEntry.objects.count() == 1000


def test_record_calls_takes_any_number(alice):
    ledger.record_calls(entries=[])
    ledger.record_calls(entries=[entry(alice, f"k{number}") for number in range(3001)])
    assert TokenLedgerEntry.objects.count() == 3001


def test_record_calls_raises_when_an_entry_is_there_already(alice):
    ledger.record_calls(entries=[entry(alice, "k1")])
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.record_calls(entries=[entry(alice, "k2"), entry(alice, "k1")])
    assert TokenLedgerEntry.objects.count() == 1


def test_list_known_entries_returns_those_with_a_row(alice):
    ledger.record_calls(entries=[entry(alice, "k1"), entry(alice, "k2")])
    assert ledger.list_known_entries(entry_keys=["k2", "k3", "K1"]) == {"k2"}
    assert ledger.list_known_entries(entry_keys=[]) == frozenset()


def test_sums_by_conversation_and_run_leave_grants_out(alice):
    record(alice, entry(alice, "k1", 10), entry(alice, "k2", 5, conversation_id="c2", run_id="r2"))
    quota.grant_tokens(user_id=alice.pk, tokens=70, reason="r", by=alice.pk, now=NOW)

    assert ledger.sum_tokens_of_conversations(conversation_ids=["c1", "c2", "c3"]) == {"c1": 10, "c2": 5, "c3": 0}
    assert ledger.sum_tokens_of_runs(run_ids=["r2", "r9"]) == {"r2": 5, "r9": 0}


def test_compare_finds_nothing_after_every_kind_of_change(alice, bob):
    record(alice, entry(alice, "k1", 10), entry(alice, "k2", 5))
    quota.hold_tokens(user_id=alice.pk, hold_id="a", tokens=50, expires_at=NOW, now=NOW)
    quota.hold_tokens(user_id=alice.pk, hold_id="b", tokens=60, expires_at=NOW + timedelta(minutes=1), now=NOW)
    quota.hold_tokens(user_id=alice.pk, hold_id="c", tokens=60, expires_at=NOW, now=NOW)
    quota.settle_hold(user_id=alice.pk, hold_id="c", tokens=61, now=NOW)
    quota.release_expired_holds(now=NOW)
    quota.settle_hold(user_id=alice.pk, hold_id="a", tokens=3, now=NOW)
    quota.charge_tokens(user_id=alice.pk, hold_id="d", tokens=7, now=NOW)
    quota.adjust_tokens(user_id=alice.pk, tokens=-20, reason="r", by=bob.pk, now=NOW)
    quota.grant_tokens(user_id=alice.pk, tokens=99, reason="r", by=bob.pk, now=NOW)

    window = TokenWindow.objects.values_list("granted_tokens", "used_tokens", "held_tokens").get()
    assert window == (99, 61 + 3 + 7 - 20, 60)
    alice.refresh_from_db()
    assert alice.token_usage == 15 - 20
    assert all_differences(ledger.compare_users) == all_differences(ledger.compare_windows) == []


def test_compare_users_finds_each_difference_and_repair_mends_it(db):
    users = [make_user(f"u{number}") for number in range(5)]
    for user in users:
        record(user, entry(user, f"k{user.pk}", 10))
    User.objects.filter(pk__in=[users[1].pk, users[4].pk]).update(token_usage=F("token_usage") + 3)

    found = all_differences(ledger.compare_users, limit=2)

    assert found == [
        SumDifference(table="users", id=user.pk, column="token_usage", stored=13, computed=10)
        for user in (users[1], users[4])
    ]
    assert ledger.repair_user(user_id=users[1].pk) == (found[0],)
    assert ledger.repair_user(user_id=users[1].pk) == ()
    assert ledger.repair_user(user_id=10**6) == ()
    assert all_differences(ledger.compare_users) == [found[1]]


def test_compare_windows_finds_each_difference_and_repair_mends_it(alice):
    quota.hold_tokens(user_id=alice.pk, hold_id="a", tokens=50, expires_at=NOW, now=NOW)
    quota.charge_tokens(user_id=alice.pk, hold_id="d", tokens=7, now=NOW)
    window = TokenWindow.objects.get()
    TokenWindow.objects.update(used_tokens=8, held_tokens=0, granted_tokens=1)

    found = all_differences(ledger.compare_windows)

    assert [(row.table, row.id, row.column, row.stored, row.computed) for row in found] == [
        ("token_windows", window.pk, "used_tokens", 8, 7),
        ("token_windows", window.pk, "held_tokens", 0, 50),
        ("token_windows", window.pk, "granted_tokens", 1, 0),
    ]
    assert ledger.repair_window(window_id=window.pk) == tuple(found)
    assert ledger.repair_window(window_id=window.pk) == ()
    assert all_differences(ledger.compare_windows) == []


def test_compare_costs_one_statement_however_many_rows(db, django_assert_num_queries):
    for number in range(20):
        user = make_user(f"u{number}")
        quota.charge_tokens(user_id=user.pk, hold_id=f"h{number}", tokens=7, now=NOW)
        record(user, entry(user, f"k{number}"))
    with django_assert_num_queries(1):
        assert ledger.compare_users(after_id=0, limit=100).last_id is None
    with django_assert_num_queries(1):
        assert ledger.compare_windows(after_id=0, limit=100).differences == ()


def test_the_ledger_is_neither_changed_nor_emptied(alice):
    ledger.record_calls(entries=[entry(alice, "k1")])
    rows, row = TokenLedgerEntry.objects.all(), TokenLedgerEntry.objects.get()
    row.total_tokens = 0

    for change in (lambda: rows.update(total_tokens=0), rows.delete, row.save, row.delete):
        with pytest.raises(TypeError, match="append one"):
            change()

    assert TokenLedgerEntry.objects.get().total_tokens == 10


def test_the_ledger_knows_three_kinds(alice):
    with pytest.raises(IntegrityError), transaction.atomic():
        TokenLedgerEntry.objects.create(entry_key="k", user=alice, kind="gift", total_tokens=1, created_at=NOW)
    assert list(EntryKind) == ["usage", "grant", "adjust"]
