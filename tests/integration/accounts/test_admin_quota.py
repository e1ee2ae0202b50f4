"""The operators' pages of the quota: the ledger, a user's windows and holds, granting and adjusting."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from smartflow.accounts import quota
from smartflow.accounts.contracts import ModelCall
from smartflow.accounts.ledger import NewEntry, record_calls
from smartflow.accounts.models import TokenLedgerEntry, TokenWindow, User
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from tests.admin_rows import operator_client
from tests.factories import make_user

pytestmark = pytest.mark.django_db
LEDGER, USERS = "/admin/accounts/tokenledgerentry/", "/admin/accounts/user/"
SEES = ("accounts.view_user", "accounts.view_tokenwindow", "accounts.view_tokenledgerentry")
ACTS = ("accounts.grant_tokens", "accounts.adjust_tokens")


@pytest.fixture
def operator():
    return operator_client(*SEES, *ACTS)


def make_entry(user, *, minutes=0, **values):
    key = f"{new_uuid()}:1"
    said = {"purpose": "answer", "total_tokens": 10, "is_estimated": False}
    said |= {name: values.pop(name) for name in said if name in values}
    call = ModelCall(call_id=key, model="gpt-4o-mini", **said)
    row = {"conversation_id": new_uuid(), "run_id": key[:36]} | values
    record_calls(
        entries=[
            NewEntry(
                entry_key=key, user_id=user.pk, call=call, created_at=utc_now() - timedelta(minutes=minutes), **row
            )
        ]
    )
    return TokenLedgerEntry.objects.get(entry_key=key)


def listed(response):
    return [row.pk for row in response.context["cl"].result_list]


def page(user, verb):
    return f"{USERS}{user.pk}/{verb}-tokens/"


def send(client, user, verb, tokens, reason="exam week", **values):
    return client.post(page(user, verb), {"tokens": tokens, "reason": reason, "once": new_uuid(), **values})


def sums(user):
    return TokenWindow.objects.values_list("granted_tokens", "used_tokens").get(user=user)


def test_ledger_is_found_by_user_conversation_run_or_entry(operator, alice, bob):
    first, second, others = make_entry(alice, minutes=5), make_entry(alice), make_entry(bob)
    same_talk = make_entry(bob, conversation_id=others.conversation_id)

    assert listed(operator.get(LEDGER)) == [same_talk.pk, others.pk, second.pk, first.pk]
    assert listed(operator.get(LEDGER, {"q": "alice"})) == [second.pk, first.pk]
    assert listed(operator.get(LEDGER, {"q": str(bob.pk)})) == [same_talk.pk, others.pk]
    assert listed(operator.get(LEDGER, {"q": others.conversation_id})) == [same_talk.pk, others.pk]
    assert listed(operator.get(LEDGER, {"q": first.run_id})) == [first.pk]
    assert listed(operator.get(LEDGER, {"q": first.entry_key})) == [first.pk]
    assert listed(operator.get(LEDGER, {"q": "nobody"})) == []


def test_ledger_marks_estimates_and_leads_to_the_rest_of_a_conversation(operator, alice):
    entry = make_entry(alice, total_tokens=77, is_estimated=True)
    content = operator.get(LEDGER).content.decode()
    assert "≈ 77" in content
    assert f'href="?q={entry.conversation_id}"' in content
    assert f'href="?q={entry.run_id}"' in content


def test_ledger_of_a_user_is_sorted_by_time_not_by_arrival(operator, alice):
    new, late = make_entry(alice), make_entry(alice, minutes=90)
    assert listed(operator.get(LEDGER, {"q": "alice"})) == [new.pk, late.pk]


def test_ledger_is_filtered_by_kind(operator, alice):
    make_entry(alice)
    quota.grant_tokens(user_id=alice.pk, tokens=5, reason="exam week", by=alice.pk, now=utc_now())
    grant = TokenLedgerEntry.objects.get(kind="grant")

    response = operator.get(LEDGER, {"kind": "grant"})

    assert listed(response) == [grant.pk]
    assert "alice: exam week" in response.content.decode()
    assert listed(operator.get(LEDGER, {"q": grant.entry_key})) == [grant.pk]


def test_ledger_cannot_be_changed_or_deleted(alice):
    chief = User.objects.create_superuser("root", "x")
    entry = make_entry(alice)
    client = operator_client(username="other")
    client.force_login(chief)
    assert client.get(f"{LEDGER}{entry.pk}/change/").status_code == 200
    assert client.post(f"{LEDGER}{entry.pk}/change/", {"total_tokens": 0}).status_code == 403
    assert client.post(f"{LEDGER}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.get(f"{LEDGER}add/").status_code == 403


def test_ledger_needs_its_permission(alice):
    assert operator_client("accounts.view_user").get(LEDGER).status_code == 403


def test_grant_raises_what_the_user_may_use_and_is_in_ledger_and_history(operator, alice):
    response = send(operator, alice, "grant", 5000, reason="Exam week")

    assert response.status_code == 302
    assert sums(alice) == (5000, 0)
    me = User.objects.get(username="operator")
    row = TokenLedgerEntry.objects.get()
    assert (row.kind, row.total_tokens, row.reason, row.actor_id, row.user_id) == (
        "grant",
        5000,
        "Exam week",
        me.pk,
        alice.pk,
    )
    assert row.window == TokenWindow.objects.get()
    line = LogEntry.objects.get()
    assert (line.object_id, line.user_id) == (str(alice.pk), me.pk)
    assert line.change_message == "granted 5000 tokens. Reason: Exam week"
    assert "granted 5000 tokens" in operator.get(f"{USERS}{alice.pk}/history/").content.decode()
    alice.refresh_from_db()
    assert alice.token_usage == 0


def test_adjust_changes_window_and_user_by_the_same_number_and_stops_at_zero(operator, alice):
    quota.charge_tokens(user_id=alice.pk, hold_id="a", tokens=300, now=utc_now())
    User.objects.filter(pk=alice.pk).update(token_usage=300)

    send(operator, alice, "adjust", 50)
    alice.refresh_from_db()
    assert (sums(alice), alice.token_usage) == ((0, 350), 350)

    send(operator, alice, "adjust", -10_000)
    alice.refresh_from_db()
    assert (sums(alice), alice.token_usage) == ((0, 0), 0)
    assert list(TokenLedgerEntry.objects.order_by("id").values_list("kind", "total_tokens")) == [
        ("adjust", 50),
        ("adjust", -350),
    ]


def test_a_grant_can_be_taken_back_but_no_more_than_was_granted(operator, alice):
    send(operator, alice, "grant", 500)
    send(operator, alice, "grant", -9000)
    assert sums(alice) == (0, 0)
    assert list(TokenLedgerEntry.objects.order_by("id").values_list("total_tokens", flat=True)) == [500, -500]


@pytest.mark.parametrize("verb", ["grant", "adjust"])
def test_a_form_sent_twice_has_one_effect(operator, alice, verb):
    once = new_uuid()
    for _ in range(2):
        assert send(operator, alice, verb, 70, once=once).status_code == 302
    assert sum(sums(alice)) == 70
    assert TokenLedgerEntry.objects.count() == LogEntry.objects.count() == 1


@pytest.mark.parametrize("verb", ["grant", "adjust"])
@pytest.mark.parametrize(
    "wrong",
    [{"tokens": ""}, {"tokens": "many"}, {"tokens": 0}, {"tokens": 2**31}, {"tokens": -5}, {"reason": " "}],
    ids=str,
)
def test_a_wrong_form_is_shown_again_and_changes_nothing(operator, alice, verb, wrong):
    response = operator.post(page(alice, verb), {"tokens": 5, "reason": "exam", "once": new_uuid()} | wrong)

    assert response.status_code == 200
    assert 'role="alert"' in response.content.decode()
    assert not TokenLedgerEntry.objects.exists()


@pytest.mark.parametrize(("verb", "other"), [("grant", "adjust"), ("adjust", "grant")])
def test_each_verb_needs_its_own_permission(alice, verb, other):
    client = operator_client("accounts.view_user", f"accounts.{other}_tokens")
    assert client.get(page(alice, verb)).status_code == 403
    assert send(client, alice, verb, 5).status_code == 403
    assert client.get(page(alice, other)).status_code == 200
    content = client.get(f"{USERS}{alice.pk}/change/").content.decode()
    assert page(alice, other) in content
    assert page(alice, verb) not in content


def test_verbs_of_nobody_are_not_found(operator):
    assert operator.get(f"{USERS}999999/grant-tokens/").status_code == 404


def test_user_page_shows_windows_holds_and_entries_to_those_who_may_see_them(operator, alice):
    now = utc_now()
    quota.hold_tokens(user_id=alice.pk, hold_id="run-77", tokens=654, expires_at=now, now=now)
    quota.charge_tokens(user_id=alice.pk, hold_id="b", tokens=321, now=now)
    make_entry(alice, purpose="title")

    content = operator.get(f"{USERS}{alice.pk}/change/").content.decode()
    for text in ("run-77", "654", "321", "title", "Asia/Shanghai", page(alice, "grant")):
        assert text in content

    plain = operator_client("accounts.view_user", username="plain").get(f"{USERS}{alice.pk}/change/").content.decode()
    for text in ("run-77", "title</td>", page(alice, "grant")):
        assert text not in plain


def test_user_page_costs_the_same_with_few_and_with_many_rows(operator, alice):
    now, url = utc_now(), f"{USERS}{alice.pk}/change/"
    costs = []
    for count in (2, 30):
        for number in range(count):
            quota.hold_tokens(user_id=alice.pk, hold_id=f"{count}-{number}", tokens=1, expires_at=now, now=now)
            make_entry(alice)
            quota.adjust_tokens(user_id=alice.pk, tokens=1, reason="r", by=alice.pk, now=utc_now())
        operator.get(url)
        with CaptureQueriesContext(connection) as captured:
            assert operator.get(url).status_code == 200
        costs.append(len(captured))
        assert not [query["sql"] for query in captured if "COUNT(" in query["sql"].upper()]
    assert costs[0] == costs[1]


def test_list_shows_how_much_of_this_weeks_quota_is_used(operator):
    dora = make_user("dora", token_limit=1000, token_usage=999_999)
    quota.charge_tokens(user_id=dora.pk, hold_id="a", tokens=1250, now=utc_now())
    assert "125%" in operator.get(USERS, {"q": "dora"}).content.decode()
    quota.grant_tokens(user_id=dora.pk, tokens=1500, reason="r", by=dora.pk, now=utc_now())
    assert "50%" in operator.get(USERS, {"q": "dora"}).content.decode()
