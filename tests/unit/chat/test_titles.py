"""chat/memory/titles.py: bounded material in, a clean title out."""

import pytest

from chat.contracts import HistoryMessage, Role
from chat.memory.titles import MOST_CHARACTERS, clean_title, describe_conversation


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Linear algebra", "Linear algebra"),
        ("  高数复习计划  \n第二行", "高数复习计划"),
        ("\n\nTitle: Week plan", "Week plan"),
        ("title：周计划", "周计划"),
        ("标题：“期末复习”", "期末复习"),
        ("《标题：期末复习》", "期末复习"),
        ("**Title:** 'Exam on Friday'", "Exam on Friday"),
        ("# Exam", "Exam"),
        ("「周三交作业」", "周三交作业"),
        ("Titles of books", "Titles of books"),
        ("C++ (advanced", "C++ (advanced"),
        ("Rest\x00\u202e of it", "Rest of it"),
        ('"""', ""),
        ("标题：", ""),
        (" \n\t\n", ""),
        ("", ""),
    ],
)
def test_clean_title_leaves_the_words(said, title):
    assert clean_title(said) == title


@pytest.mark.parametrize("said", ["字" * 100, "word " * 30, "👩‍👩‍👧" * 9, "a" * 23 + " b"])
def test_clean_title_cuts_and_leaves_no_loose_end(said):
    title = clean_title(said)

    assert 1 <= len(title) <= MOST_CHARACTERS
    assert said.startswith(title)
    assert title == title.strip(" \u200d")


def message(content, role=Role.USER):
    return HistoryMessage(role=role, content=content)


def test_describe_conversation_labels_the_newest_eight_and_cuts_each():
    messages = [message(f"{number} " + "x" * 200, Role.ASSISTANT if number % 2 else Role.USER) for number in range(12)]

    lines = describe_conversation(messages).splitlines()

    assert [line.split()[:2] for line in lines] == [
        ["assistant:" if number % 2 else "user:", str(number)] for number in range(4, 12)
    ]
    assert {len(line.split(": ", 1)[1]) for line in lines} == {80}


def test_describe_conversation_keeps_the_first_words_and_one_line_a_message(monkeypatch):
    monkeypatch.setattr("chat.memory.titles.MOST_WORDS", 5)

    text = describe_conversation([message("one\ntwo\r\n three"), message("  "), message("four five six"), message("7")])

    assert text == "user: one two three\nuser: four five"
