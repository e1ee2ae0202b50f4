"""The model's memory: a cached copy is used only when it is exactly the right one; the budget keeps turns whole."""

import pytest
from django.core.cache import cache

from chat.contracts import HistoryMessage, Role
from chat.memory import history
from chat.memory.budget import estimate_message, trim_turns
from chat.memory.history import load_turns, remember_turn
from tests.integration.chat.turns import talk

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()
    yield
    cache.clear()


def contents(turns):
    return [[message.content for message in turn] for turn in turns]


def remember(user, conversation_id, number, earlier, answer="A"):
    remember_turn(
        user_id=user.pk,
        conversation_id=conversation_id,
        turn_no=number,
        earlier=earlier,
        question=f"Q{number}",
        answer=answer,
    )


def load(user, conversation_id, before):
    return load_turns(user_id=user.pk, conversation_id=conversation_id, before_turn=before)


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

    assert contents(load(alice, conversation_id, 3)) == [["Q1", "A"], ["Q2", "A"]]


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
