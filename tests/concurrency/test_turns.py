"""Turns that race: one of them wins, the others are told, and the books stay right."""

import pytest
from django.db import transaction

from chat import operations
from chat.contracts import RunState, StartedRun
from chat.models import AgentChat, ChatHistory, ChatRun
from chat.operations import RunAlreadyLive, RunNotOwned
from chat.operations.ownership import started_run
from outbox.models import OutboxMessage
from smartflow.kernel.clock import utc_now
from tests.integration.chat.turns import answer_event, ask, end_orphaned_runs, messages, result, talk
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


def test_begin_turn_lets_one_of_many_begin_in_a_conversation(alice):
    conversation_id = talk(alice, ("One", "1"))

    outcomes = run_at_once(*[lambda: ask(alice, "Me", conversation_id=conversation_id)] * 4)

    refused = [outcome for outcome in outcomes if isinstance(outcome, RunAlreadyLive)]
    (begun,) = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert len(refused) == 3
    assert begun.turn_no == 2
    assert ChatRun.objects.filter(is_live=True).count() == 1
    assert len(messages()) == 3


def test_begin_turn_opens_as_many_conversations_as_it_is_asked_for(alice):
    outcomes = run_at_once(*[lambda: ask(alice)] * 4)

    assert len({run.conversation_id for run in outcomes}) == 4
    assert AgentChat.objects.count() == ChatRun.objects.count() == OutboxMessage.objects.count() == 4


@pytest.mark.parametrize("is_first", [True, False])
def test_begin_turn_begins_one_turn_of_a_message_that_is_sent_many_times_at_once(alice, is_first):
    conversation_id = None if is_first else talk(alice, ("One", "1"))
    earlier = ChatRun.objects.count()

    outcomes = run_at_once(*[lambda: ask(alice, "Me", conversation_id=conversation_id, key="k")] * 6)

    assert sum(isinstance(outcome, StartedRun) for outcome in outcomes) == 1
    assert len({(outcome.run_id, outcome.conversation_id) for outcome in outcomes}) == 1
    assert ChatRun.objects.count() == earlier + 1
    assert AgentChat.objects.count() == 1
    assert [event.payload["message"] for event in messages()][2 * earlier :] == ["Me"]


def test_owner_and_orphan_sweep_end_a_run_once(alice):
    run = ask(alice)
    past_lease = ChatRun.objects.get().lease_until.replace(year=2100)

    finished, ended = run_at_once(
        lambda: operations.finish_run(run=run, result=result("Whole"), now=utc_now()),
        lambda: end_orphaned_runs(now=past_lease),
    )

    row = ChatRun.objects.get()
    if isinstance(finished, RunNotOwned):
        assert (ended, row.state, len(messages())) == (1, RunState.FAILED, 1)
    else:
        assert (finished, ended, row.state, row.output_text) == (2, 0, RunState.FINISHED, "Whole")
        assert len(messages()) == 2


def test_record_messages_of_one_event_at_once_counts_once(alice):
    run = ask(alice)
    event = answer_event(run, tokens=5)

    def record():
        with transaction.atomic():
            operations.record_messages(events={"e-1": event})

    assert run_at_once(*[record] * 4) == [None] * 4

    alice.refresh_from_db()
    chat = AgentChat.objects.get()
    assert (ChatHistory.objects.count(), chat.message_count, chat.tokens_total, alice.token_usage) == (1, 1, 5, 5)


def test_renaming_never_deadlocks_with_the_messages_that_are_counted(alice):
    # One conversation: the user's index is then as good as the unique key, and MariaDB may take either.
    conversation_id = talk(alice, ("One", "1"))
    run = started_run(run=ChatRun.objects.select_related("chat").get())

    def count(number):
        event = answer_event(run, tokens=1)
        with transaction.atomic():
            operations.record_messages(events={f"{run.run_id}:{number}": event})

    def rename(number):
        operations.change_conversation(user_id=alice.pk, conversation_id=conversation_id, title=f"Title {number}")

    def repeat(step):
        for number in range(100):
            step(number)

    assert run_at_once(lambda: repeat(count), lambda: repeat(rename)) == [None, None]
    assert ChatHistory.objects.count() == 100
    assert AgentChat.objects.get().title == "Title 99"
