"""The estimate of tokens and the trimming of history, after the rule of the given product."""

import pytest

from chat.contracts import HistoryMessage, Role
from chat.memory.budget import (
    Turn,
    estimate_message,
    estimate_prompt,
    estimate_text,
    history_budget,
    trim_turns,
)


def turn(number: int, *, size: int = 40) -> Turn:
    """Return a turn of 2 × (6 + size / 4) tokens."""
    return (
        HistoryMessage(role=Role.USER, content=f"{number}".ljust(size, "q")),
        HistoryMessage(role=Role.ASSISTANT, content=f"{number}".ljust(size, "a")),
    )


def trim(turns: list[Turn], *, room: int, system_prompt: str = "", user_message: str = "") -> list[int]:
    """Return the numbers of the turns that stay with `room` tokens for them and nothing said now."""
    kept = trim_turns(
        turns,
        max_input_tokens=room + 64 + 100,
        reserved_tokens=100,
        system_prompt=system_prompt,
        user_message=user_message,
    )
    return [int(messages[0].content.rstrip("q")) for messages in kept]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        (" \n\t\u3000", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("a b c d", 1),  # white space is free
        ("你好", 2),
        ("你好 ok", 3),
        ("ひらカタ", 4),
        ("한국어", 3),
        ("é", 1),
        ("éèà", 2),
        ("🎉", 1),
        ("你好abcdeéèà", 2 + 2 + 2),
        ("，", 1),  # full-width punctuation is of no script: an other
        ("𠀀", 1),
    ],
)
def test_estimate_text_counts_by_script(text: str, tokens: int) -> None:
    assert estimate_text(text) == tokens


def test_estimate_message_adds_six_and_counts_reasoning() -> None:
    assert estimate_message("") == 6
    assert estimate_message("abcd", reasoning="你好") == 6 + 1 + 2


def test_estimate_prompt_sums_system_prompt_and_messages() -> None:
    assert estimate_prompt(turn(1), system_prompt="abcd") == 1 + 2 * (6 + 10)


def test_history_budget_takes_off_reserve_base_and_the_fixed_sixty_four() -> None:
    left = history_budget(max_input_tokens=224_000, reserved_tokens=28_000, system_prompt="abcd", user_message="你好")
    assert left == 224_000 - 28_000 - (1 + 2 + 64)


def test_history_budget_is_never_negative() -> None:
    assert history_budget(max_input_tokens=10, reserved_tokens=100, system_prompt="", user_message="x") == 0


def test_trim_turns_keeps_all_when_they_fit_exactly() -> None:
    assert trim([turn(1), turn(2), turn(3)], room=96) == [1, 2, 3]


def test_trim_turns_drops_the_oldest_when_one_token_is_missing() -> None:
    assert trim([turn(1), turn(2), turn(3)], room=95) == [2, 3]


def test_trim_turns_never_splits_a_turn() -> None:
    # 47 tokens hold one turn and most of a second, whose answer alone would fit.
    kept = trim_turns(
        [turn(1), turn(2)], max_input_tokens=47 + 64, reserved_tokens=0, system_prompt="", user_message=""
    )
    assert kept == (turn(2),)


def test_trim_turns_leaves_no_hole_when_an_old_turn_would_fit_behind_a_long_one() -> None:
    assert trim([turn(1, size=4), turn(2, size=4000), turn(3)], room=100) == [3]


def test_trim_turns_charges_system_prompt_and_message() -> None:
    assert trim([turn(1), turn(2)], room=64, system_prompt="abcd") == [2]
    assert trim([turn(1), turn(2)], room=64, user_message="好") == [2]


@pytest.mark.parametrize("room", [0, -50])
def test_trim_turns_drops_everything_when_no_budget_is_left(room: int) -> None:
    assert trim([turn(1), turn(2)], room=room) == []
    empty: Turn = ()
    assert trim_turns([empty], max_input_tokens=0, reserved_tokens=0, system_prompt="", user_message="") == ()


def test_trim_turns_of_nothing_is_nothing() -> None:
    assert trim([], room=1000) == []
