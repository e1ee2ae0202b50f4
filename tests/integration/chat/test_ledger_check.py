"""The check of the sums against the ledger: finds every kind of damage, mends it, and nothing else."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F

from chat import jobs, operations
from chat.ledger_check import check_ledger
from chat.models import AgentChat, ChatHistory, ChatRun
from chat.operations.messages import answer_event_id
from outbox.models import OutboxMessage, Status
from outbox.testing import drain
from smartflow.accounts import quota
from smartflow.accounts.ledger import NewEntry, record_calls
from smartflow.accounts.models import TokenHold, TokenWindow, User
from smartflow.kernel.clock import utc_now
from tests.integration.chat.turns import another, ask, call, talk

pytestmark = pytest.mark.django_db


@pytest.fixture
def books(alice, bob):
    """Two users with turns, a variant, a title, a grant, an adjustment and a live hold."""
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))
    another(alice, ChatRun.objects.order_by("-turn_no")[0].id)
    (conversation,) = operations.claim_titles(now=utc_now(), limit=1)
    title = call(12, call_id="title-1", purpose="title")
    operations.save_title(conversation=conversation, title="Numbers", calls=(title,), now=utc_now())
    quota.grant_tokens(user_id=alice.pk, tokens=500, reason="exam", by=bob.pk, now=utc_now())
    quota.adjust_tokens(user_id=alice.pk, tokens=30, reason="test", by=bob.pk, now=utc_now())
    ask(alice)
    talk(bob, ("Hi", "Ho"))
    drain()
    assert list(check_ledger()) == []
    return conversation_id


def add(rows, column, by=5):
    """Damage one row."""
    pk = rows.order_by("pk").values_list("pk", flat=True).first()
    rows.model._default_manager.filter(pk=pk).update(**{column: F(column) + by})
    return pk


def swap():
    """Move tokens from one answer to another: every total stays right."""
    first, second = ChatHistory.objects.filter(role="assistant", user__username="alice").order_by("pk")[:2]
    ChatHistory.objects.filter(pk=first.pk).update(tokens_consumed=F("tokens_consumed") - 3)
    ChatHistory.objects.filter(pk=second.pk).update(tokens_consumed=F("tokens_consumed") + 3)


def append_call():
    run = ChatRun.objects.filter(is_live=None, user__username="alice")[0]
    now = utc_now()
    record_calls(entries=[NewEntry("lost-1", run.user_id, run.chat_id, run.id, call(5, call_id="lost-1"), now)])


def charge_more():
    """A charge and its window agree, and both are too much."""
    run = ChatRun.objects.filter(is_live=None, user__username="alice")[0]
    TokenHold.objects.filter(pk=run.pk).update(charged_tokens=F("charged_tokens") + 1000)
    TokenWindow.objects.filter(user__username="alice").update(used_tokens=F("used_tokens") + 1000)


DAMAGES = {
    "a user's sum": (lambda: add(User.objects.filter(username="alice"), "token_usage"), {("users", "token_usage")}),
    "a user's sum to less": (
        lambda: add(User.objects.filter(username="alice"), "token_usage", -7),
        {("users", "token_usage")},
    ),
    "a conversation": (
        lambda: add(AgentChat.objects.filter(user__username="alice"), "tokens_total"),
        {("agent_chats", "tokens_total")},
    ),
    "an answer": (
        lambda: add(ChatHistory.objects.filter(role="assistant"), "tokens_consumed"),
        {("chat_histories", "tokens_consumed")},
    ),
    "a question": (
        lambda: add(ChatHistory.objects.filter(role="user"), "tokens_consumed"),
        {("chat_histories", "tokens_consumed")},
    ),
    "two answers that add up": (swap, {("chat_histories", "tokens_consumed")}),
    "what a window used": (lambda: add(TokenWindow.objects.all(), "used_tokens"), {("token_windows", "used_tokens")}),
    "what a window holds": (lambda: add(TokenWindow.objects.all(), "held_tokens"), {("token_windows", "held_tokens")}),
    "what was granted": (
        lambda: add(TokenWindow.objects.all(), "granted_tokens"),
        {("token_windows", "granted_tokens")},
    ),
    "the ledger has one call more": (
        append_call,
        {
            ("users", "token_usage"),
            ("agent_chats", "tokens_total"),
            ("chat_histories", "tokens_consumed"),
            ("chat_runs", "total_tokens"),
            ("token_holds", "charged_tokens"),
        },
    ),
    "a run's own total": (
        lambda: add(ChatRun.objects.filter(is_live=None), "total_tokens"),
        {("chat_runs", "total_tokens")},
    ),
    "what was charged for a run": (
        charge_more,
        {("token_holds", "charged_tokens")},
    ),
}


def found(**options):
    return {(one.table, one.column) for one in check_ledger(**options)}


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_kind_of_damage_is_found_mended_and_gone(books, kind):
    damage, expected = DAMAGES[kind]
    damage()

    assert found() == expected
    assert found() == expected  # looking mends nothing
    assert {one.is_mended for one in check_ledger(is_repairing=True)} == {True}
    assert found() == found(is_repairing=True) == set()


def test_check_ledger_names_what_whose_stored_and_true(books, alice):
    add(User.objects.filter(pk=alice.pk), "token_usage", 5)
    alice.refresh_from_db()

    (one,) = check_ledger()

    assert (one.table, one.id, one.whose) == ("users", alice.pk, f"user {alice.pk}")
    assert (one.stored, one.computed) == (alice.token_usage, alice.token_usage - 5)


def test_run_whose_answer_is_under_way_has_time_and_one_whose_answer_is_dead_is_told(alice):
    talk(alice, ("One", "1"))
    run = ChatRun.objects.get()
    assert found() == set()
    answer = OutboxMessage.objects.filter(event_id=answer_event_id(run_id=run.id))
    answer.update(status=Status.DEAD, ready_shard=None)

    for _ in range(2):
        told = list(check_ledger(is_repairing=True))
        assert {(one.table, one.id, one.stored, one.computed, one.is_mended) for one in told} == {
            ("chat_runs", run.id, run.total_tokens, 0, False),
            ("token_holds", run.id, run.total_tokens, 0, False),
        }
    answer.update(status=Status.PENDING, ready_shard=F("shard"))
    drain()
    assert found() == set()


def test_message_that_is_lost_is_told_and_cannot_be_mended(books):
    ChatHistory.objects.filter(role="assistant", chat__chat_id=books).order_by("pk")[1].delete()

    for _ in range(2):
        (one,) = check_ledger(is_repairing=True)
        assert (one.table, one.id, one.stored, one.computed, one.is_mended) == ("chat_histories", 0, 0, 9, False)


def test_one_user_is_looked_at_alone(books, alice, bob):
    for user in (alice, bob):
        add(User.objects.filter(pk=user.pk), "token_usage")
        add(AgentChat.objects.filter(user=user), "tokens_total")
        add(ChatHistory.objects.filter(user=user, role="user"), "tokens_consumed")
        add(TokenWindow.objects.filter(user=user), "used_tokens")

    assert len(list(check_ledger(user_id=alice.pk))) == 4
    assert len(list(check_ledger(user_id=alice.pk, is_repairing=True))) == 4
    assert list(check_ledger(user_id=alice.pk)) == []
    assert len(list(check_ledger())) == 4


def test_every_row_is_looked_at_however_many_steps_it_takes(books, monkeypatch):
    monkeypatch.setattr("chat.ledger_check.CONVERSATIONS_AT_ONCE", 1)
    monkeypatch.setattr("chat.ledger_check.MESSAGES_AT_ONCE", 2)
    for rows, column in ((AgentChat.objects.all(), "tokens_total"), (ChatHistory.objects.all(), "tokens_consumed")):
        rows.update(**{column: F(column) + 1})

    differences = list(check_ledger())

    assert len(differences) == AgentChat.objects.count() + ChatHistory.objects.count()
    assert len(set(differences)) == len(differences)


def run(*arguments):
    out = StringIO()
    call_command("check_ledger", *arguments, stdout=out)
    return out.getvalue()


def test_command_says_that_all_is_well(books):
    assert run() == "Every sum is what the ledger says.\n"


def test_command_fails_and_names_each_difference_until_it_is_mended(books, alice, capsys):
    add(User.objects.filter(pk=alice.pk), "token_usage")
    out = StringIO()
    with pytest.raises(CommandError, match="1 differences are left") as caught:
        call_command("check_ledger", stdout=out)
    assert caught.value.returncode == 1
    assert f"differs: users id {alice.pk} (user {alice.pk}), token_usage: stored " in out.getvalue()

    assert "mended: users" in (said := run("--repair"))
    assert "1 differences were mended." in said
    assert run("--user", str(alice.pk)) == "Every sum is what the ledger says.\n"


def test_command_says_where_it_is_when_it_takes_long(books, monkeypatch):
    monkeypatch.setattr("chat.management.commands.check_ledger.PROGRESS_SECONDS", 0.0)
    errors = StringIO()
    call_command("check_ledger", stdout=StringIO(), stderr=errors)

    assert [line.split()[1] for line in errors.getvalue().splitlines()] == [
        "agent_chats",
        "chat_histories",
        "chat_runs",
        "users",
        "token_windows",
    ]


def test_nightly_job_tells_of_differences_and_mends_none(books, alice, caplog):
    caplog.set_level("INFO", logger="chat.jobs")
    jobs.check_ledger()
    add(User.objects.filter(pk=alice.pk), "token_usage")
    jobs.check_ledger()
    jobs.check_ledger()

    told = [record for record in caplog.records if record.name == "chat.jobs"]
    assert [record.levelname for record in told] == ["INFO", "ERROR", "ERROR"]
    assert told[1].differences == {"users": 1}
