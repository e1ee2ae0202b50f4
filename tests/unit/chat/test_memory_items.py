"""What an item of the long-term memory must be like."""

import pytest

from chat.memory.items import (
    MemoryContentInvalid,
    MemoryFieldInvalid,
    MemoryTypeInvalid,
    checked_reason,
    checked_values,
    content_hash,
)


def test_checked_values_returns_what_is_stored():
    given = {
        "memory_type": "fact",
        "title": " Exams ",
        "content": " in July\r\n\tand in August\n",
        "assistant_id": " ",
        "run_id": None,
        "confidence": 1,
        "importance": 0,
        "sensitivity_level": 2,
        "ttl_at": None,
    }

    assert checked_values(values=given) == given | {
        "title": "Exams",
        "content": "in July\n\tand in August",
        "assistant_id": None,
        "confidence": 1.0,
        "importance": 0.0,
    }


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("memory_type", "opinion", MemoryTypeInvalid),
        ("memory_type", "Fact", MemoryTypeInvalid),
        ("content", "", MemoryContentInvalid),
        ("content", " \n\t", MemoryContentInvalid),
        ("content", "x" * 2001, MemoryContentInvalid),
        ("content", "a\x1b[31mred", MemoryContentInvalid),
        ("content", "a\x00b", MemoryContentInvalid),
        ("content", "a\x85b", MemoryContentInvalid),
        ("content", "a\ud800b", MemoryContentInvalid),
        ("title", " ", MemoryFieldInvalid),
        ("title", "x" * 256, MemoryFieldInvalid),
        ("title", "two\nlines", MemoryFieldInvalid),
        ("assistant_id", "x" * 65, MemoryFieldInvalid),
        ("run_id", "a\tb", MemoryFieldInvalid),
        ("confidence", 1.01, MemoryFieldInvalid),
        ("confidence", float("nan"), MemoryFieldInvalid),
        ("importance", -0.01, MemoryFieldInvalid),
        ("sensitivity_level", 3, MemoryFieldInvalid),
        ("sensitivity_level", -1, MemoryFieldInvalid),
    ],
)
def test_checked_values_names_the_field_that_is_wrong(name, value, error):
    with pytest.raises(error) as caught:
        checked_values(values={name: value})

    assert set(caught.value.fields) == {name}


@pytest.mark.parametrize("content", ["x" * 2000, "早上十点之前不要排课", "a\U0001f468\u200d\U0001f469b", "line\nline"])
def test_checked_values_takes_every_language(content):
    assert checked_values(values={"content": content}) == {"content": content}


@pytest.mark.parametrize("reason", ["x" * 256, "a\nb"])
def test_checked_reason_refuses(reason):
    with pytest.raises(MemoryFieldInvalid):
        checked_reason(reason=reason)


@pytest.mark.parametrize("same", ["Never before ten", "never  BEFORE\nten ", "ｎever before ten"])
def test_content_hash_is_the_same_however_a_content_is_spaced_capitalised_or_composed(same):
    assert content_hash(content=same) == content_hash(content="Never before ten")
    assert len(content_hash(content=same)) == 64


def test_content_hash_tells_contents_apart():
    assert content_hash(content="before ten") != content_hash(content="beforeten")
    assert content_hash(content="é") == content_hash(content="é") != content_hash(content="e")
