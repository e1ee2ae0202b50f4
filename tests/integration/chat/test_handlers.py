"""chat/handlers.py below the dispatcher: what a batch of real events costs, and what comes of it."""

import pytest

from chat.models import AgentChat, AgentStateSnapshot, ChatHistory
from outbox.dispatch import Outcome, dispatch_messages
from outbox.models import OutboxMessage, Status
from tests.integration.chat.turns import talk
from tests.outbox_rows import NOW, wire

pytestmark = pytest.mark.django_db
# lock, predecessors; find and lock conversations, known events, users, histories, ledger, sums; states; consumed
STATEMENTS = 11
SAVEPOINT = 2  # a test's transaction has one where a consumer has BEGIN and COMMIT


def test_a_batch_of_fifty_turns_takes_eleven_statements(alice, bob, django_assert_num_queries):
    for number in range(50):
        talk(alice if number % 2 else bob, (f"Question {number}", f"Answer {number}"))
    values = [wire(pk) for pk in OutboxMessage.objects.order_by("id").values_list("pk", flat=True)]

    with django_assert_num_queries(STATEMENTS + SAVEPOINT):
        outcomes = dispatch_messages(values=values, clock=lambda: NOW)

    assert outcomes == [Outcome.CONSUMED] * 150
    assert set(OutboxMessage.objects.values_list("status", flat=True)) == {Status.CONSUMED}
    assert ChatHistory.objects.count() == 100
    assert AgentStateSnapshot.objects.count() == 50
    assert set(AgentChat.objects.values_list("message_count", "tokens_total")) == {(2, 9)}


def test_a_message_that_nothing_can_mend_leaves_its_neighbours_counted_once(alice):
    conversations = [talk(alice, ("Question", "Answer")) for _ in range(3)]
    bad = OutboxMessage.objects.filter(message_key=conversations[1]).order_by("id")[0]
    bad.payload = bad.payload.replace('"tokens_consumed":0', '"tokens_consumed":99999999999999999999')
    bad.save()
    values = [wire(pk) for pk in OutboxMessage.objects.order_by("id").values_list("pk", flat=True)]

    outcomes = dispatch_messages(values=values, clock=lambda: NOW)

    consumed = Outcome.CONSUMED
    blocked = [Outcome.DEAD, Outcome.BLOCKED, Outcome.BLOCKED]
    assert outcomes == [consumed] * 3 + blocked + [consumed] * 3
    counts = dict(AgentChat.objects.values_list("chat_id", "message_count"))
    assert [counts[conversation] for conversation in conversations] == [2, 0, 2]
    alice.refresh_from_db()
    assert alice.token_usage == 18
