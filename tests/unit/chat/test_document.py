"""The document of a run: positions mean the same wherever it is kept."""

import pytest

from chat.runs.document import Document, Position, pieces_after, units_in

NOTE = {"kind": "status", "status": {"code": "compacting"}}


def document(*pieces):
    made = Document()
    for piece in pieces:
        made.add(piece)
    return made


@pytest.mark.parametrize("text", ["1-0", "1-345", "3-12"])
def test_position_reads_back_what_it_writes(text):
    assert str(Position.parse(text)) == text


@pytest.mark.parametrize("text", ["", "345", "1-", "-1", "1-2-3", "a-1", "1-b", "١-٢", "1-9999999999999", "1--2"])
def test_position_of_anything_else_is_none(text):
    assert Position.parse(text) is None


def test_units_count_characters_and_events():
    made = document("ab", NOTE, "猫🙂")

    assert (made.text, made.units) == ("ab猫🙂", 5)
    assert made.events == [{"at": 2, "data": NOTE}]


def test_add_of_an_empty_text_changes_nothing():
    made = document("ab", "")

    assert (made.pieces, made.units) == (["ab"], 2)


def test_stored_text_and_events_are_the_same_document():
    made = document("ab", NOTE, NOTE, "cd", NOTE)

    again = Document(text=made.text, events=made.events)

    assert (again.pieces, again.ends, again.events) == (made.pieces, made.ends, made.events)
    assert units_in(text=made.text, events=made.events) == made.units


@pytest.mark.parametrize("units", range(9))
def test_pieces_after_any_position_are_the_rest(units):
    made = document("abc", NOTE, "def", NOTE)
    flat = ["a", "b", "c", NOTE, "d", "e", "f", NOTE]

    rest = pieces_after(text=made.text, events=made.events, units=units)

    assert [unit for piece in rest for unit in (piece if isinstance(piece, str) else [piece])] == flat[units:]


@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("end", range(9))
def test_between_gives_each_unit_once_with_the_position_behind_it(start, end):
    made = document("abc", NOTE, "d", "ef", NOTE)
    flat = ["a", "b", "c", NOTE, "d", "e", "f", NOTE]

    found = list(made.between(start, end))

    assert [unit for piece, _ in found for unit in (piece if isinstance(piece, str) else [piece])] == flat[start:end]
    assert [last for _, last in found][-1:] == ([end] if end > start else [])


def test_rest_of_a_piece_is_what_is_new_in_it():
    made = document("abc")

    assert made.rest_of("cde", end=5) == "de"
    assert made.rest_of("de", end=5) == "de"
    assert made.rest_of(NOTE, end=4) == NOTE
    assert made.rest_of("bc", end=3) == ""
    assert made.rest_of("e", end=5) is None
    assert made.rest_of(NOTE, end=5) is None


def test_fold_changes_no_position():
    made = document("a", "b", NOTE, "c", "d", "e")
    before = list(made.between(0, made.units))

    made.fold(keep=2)

    assert made.pieces == ["ab", NOTE, "c", "d", "e"]
    assert made.ends == [2, 3, 4, 5, 6]
    assert (made.text, made.units) == ("abcde", 6)
    assert "".join(piece for piece, _ in before if isinstance(piece, str)) == made.text
