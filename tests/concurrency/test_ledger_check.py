"""The check of the sums while consumers write: traffic is no difference, and a repair loses nothing of it."""

import pytest
from django.db import transaction
from django.db.models import F

from chat import operations
from chat.ledger_check import check_ledger
from chat.models import AgentChat
from outbox.database_errors import repeat_on_conflict
from smartflow.accounts.models import User
from tests.integration.chat.turns import answer_event, ask
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)
MESSAGES = 60


@pytest.mark.parametrize("is_repairing", [False, True])
def test_check_ledger_sees_no_difference_in_what_is_just_being_written(alice, bob, is_repairing):
    runs = [ask(alice), ask(alice), ask(bob)]
    done = []

    def record(run, number):
        with transaction.atomic():
            operations.record_messages(events={f"{run.run_id}:{number}": answer_event(run, tokens=3)})

    def write(run):
        try:
            write_all(run)
        finally:
            done.append(run)

    def write_all(run):
        # each answer is of a run of its own, as in the product: rule B gives a run's tokens to its one answer
        for number in range(MESSAGES):
            own = type(run)(**{**run.__dict__, "run_id": f"{run.run_id[:30]}{number:04}"})
            repeat_on_conflict(lambda own=own, number=number: record(own, number))

    def check():
        found, rounds = [], 0
        while rounds < 3 or len(done) < len(runs):
            found += list(check_ledger(is_repairing=is_repairing))
            rounds += 1
        return found

    outcomes = run_at_once(*[lambda run=run: write(run) for run in runs], check)

    assert outcomes == [None, None, None, []]
    assert list(check_ledger()) == []
    alice.refresh_from_db()
    assert alice.token_usage == 2 * MESSAGES * 3


def test_a_repair_loses_nothing_of_what_is_written_meanwhile(alice):
    run = ask(alice)
    AgentChat.objects.update(tokens_total=F("tokens_total") + 1000)
    User.objects.filter(pk=alice.pk).update(token_usage=F("token_usage") + 1000)

    def record(number):
        own = type(run)(**{**run.__dict__, "run_id": f"{run.run_id[:30]}{number:04}"})
        with transaction.atomic():
            operations.record_messages(events={f"{own.run_id}:assistant": answer_event(own, tokens=3)})

    def write():
        for number in range(MESSAGES):
            repeat_on_conflict(lambda number=number: record(number))

    written, mended = run_at_once(write, lambda: [one.table for one in check_ledger(is_repairing=True)])

    assert (written, sorted(mended)) == (None, ["agent_chats", "users"])
    assert list(check_ledger()) == []
    alice.refresh_from_db()
    assert (alice.token_usage, AgentChat.objects.get().tokens_total) == (MESSAGES * 3,) * 2
