"""The model's memory: a cached copy is used only when it is exactly the right one; the budget keeps turns whole."""

from dataclasses import replace

import pytest
from django.core.cache import cache

from chat import operations
from chat.contracts import HistoryMessage, Role, StartedRun
from chat.memory import history
from chat.memory.budget import estimate_message, trim_turns
from chat.memory.history import load_turns, remember_turn
from chat.models import AgentChat, ChatRun
from smartflow.kernel.clock import utc_now
from tests.integration.chat.turns import another, talk

pytestmark = pytest.mark.django_db


NO_RUN = StartedRun(
    run_id="r",
    conversation_id="c",
    user_id=1,
    turn_no=1,
    model="worker",
    thinking="auto",
    message="Q",
    system_prompt="",
    owner="o",
    request_id="",
)


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()
    yield
    cache.clear()


def contents(turns):
    return [[message.content for message in turn] for turn in turns]


def remember(user, conversation_id, number, earlier, answer="A", *, seq=None, covers=0):
    """Remember turn `number`; two entries of the timeline a turn, unless `seq` says otherwise."""
    run = replace(NO_RUN, user_id=user.pk, conversation_id=conversation_id, message=f"Q{number}")
    run = replace(run, turn_no=number, summary_covers_turn=covers)
    remember_turn(run=run, earlier=earlier, answer=answer, history_seq=2 * number if seq is None else seq)


def load(user, conversation_id, before, *, after=0):
    return load_turns(
        user_id=user.pk,
        conversation_id=conversation_id,
        before_turn=before,
        after_turn=after,
        history_seq=2 * (before - 1),
    )


def test_first_turn_asks_neither_cache_nor_database(alice, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert load(alice, "c-1", 1) == ()


def test_load_turns_reads_the_database_once_and_the_cache_afterwards(alice, django_assert_num_queries):
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))

    with django_assert_num_queries(1):
        first = load(alice, conversation_id, 3)
    with django_assert_num_queries(0):
        assert load(alice, conversation_id, 3) == first
    assert contents(first) == [["One", "1"], ["Two", "2"]]


def test_remembered_turn_is_what_the_next_turn_loads(alice, django_assert_num_queries):
    conversation_id = talk(alice, ("Q1", "A"), ("Q2", "A"))
    earlier = load(alice, conversation_id, 2)
    remember(alice, conversation_id, 2, earlier)

    with django_assert_num_queries(0):
        cached = load(alice, conversation_id, 3)
    cache.clear()
    assert cached == load(alice, conversation_id, 3)


@pytest.mark.parametrize("covers", [1, 3])
def test_copy_of_another_turn_is_never_used(alice, covers):
    conversation_id = talk(alice, ("Q1", "A"), ("Q2", "A"))
    remember(alice, conversation_id, covers, (), answer="stale or from a racing process")
    remember(alice, conversation_id, 2, (), answer="of the turns behind another summary", covers=1)

    assert contents(load(alice, conversation_id, 3)) == [["Q1", "A"], ["Q2", "A"]]


def test_turns_before_the_summary_are_not_loaded(alice):
    conversation_id = talk(alice, ("Q1", "A1"), ("Q2", "A2"), ("Q3", "A3"))

    assert contents(load(alice, conversation_id, 4, after=2)) == [["Q3", "A3"]]
    assert load(alice, conversation_id, 4, after=3) == ()


def test_choosing_another_variant_outdates_the_copy(alice):
    conversation_id = talk(alice, ("Q1", "first"))
    first = ChatRun.objects.get().id
    another(alice, first, answer="second")
    seq = AgentChat.objects.get().timeline_seq
    values = {"user_id": alice.pk, "conversation_id": conversation_id, "before_turn": 2}
    assert contents(load_turns(**values, history_seq=seq)) == [["Q1", "second"]]

    operations.select_variant(user_id=alice.pk, run_id=first, now=utc_now())

    assert contents(load_turns(**values, history_seq=AgentChat.objects.get().timeline_seq)) == [["Q1", "first"]]


def test_a_history_of_unknown_seq_is_never_cached(alice, django_assert_num_queries):
    conversation_id = talk(alice, ("Q1", "A"))
    for _ in range(2):
        with django_assert_num_queries(1):
            load_turns(user_id=alice.pk, conversation_id=conversation_id, before_turn=2)


def test_unanswered_turn_is_passed_over_in_the_copy_too(alice):
    conversation_id = talk(alice, ("Q1", "A"))
    earlier = load(alice, conversation_id, 2)
    remember(alice, conversation_id, 2, earlier, answer="")

    assert contents(load(alice, conversation_id, 3)) == [["Q1", "A"]]


def test_copy_of_alice_is_never_given_to_bob(alice, bob):
    conversation_id = talk(alice, ("Secret", "yes"))
    load(alice, conversation_id, 2)

    assert load(bob, conversation_id, 2) == ()


def test_damaged_copy_is_not_used(alice):
    conversation_id = talk(alice, ("Q1", "A"))
    cache.set(history._key(alice.pk, conversation_id), "not what it should be")

    assert contents(load(alice, conversation_id, 2)) == [["Q1", "A"]]


def test_copy_is_bounded(alice, monkeypatch):
    monkeypatch.setattr(history, "MAX_TURNS", 2)
    turn = (HistoryMessage(role=Role.USER, content="Q"), HistoryMessage(role=Role.ASSISTANT, content="A"))
    remember(alice, "c-1", 4, (turn, turn, turn))

    assert contents(load(alice, "c-1", 5)) == [["Q", "A"], ["Q4", "A"]]


def test_budget_drops_the_oldest_turns_and_splits_none(alice):
    conversation_id = talk(alice, *((f"Q{number} " + "字" * 100, "答" * 100) for number in range(1, 6)))
    turns = load(alice, conversation_id, 6)
    one = sum(estimate_message(message.content) for message in turns[-1])

    kept = trim_turns(
        turns, max_input_tokens=64 + 1 + 2 * one + one // 2, reserved_tokens=0, system_prompt="", user_message="Hi"
    )

    assert kept == turns[-2:]
