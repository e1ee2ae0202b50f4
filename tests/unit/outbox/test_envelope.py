"""outbox/envelope.py: what is written comes back, and whatever else arrives is refused with a reason."""

import json

import pytest

from outbox.envelope import Envelope, EnvelopeUnreadable, decode_stored, decode_wire, encode_stored, encode_wire
from tests.outbox_rows import EVENT_TYPE, make_event

GOOD = {"event_id": "e1", "event_type": "a.b.c", "event_version": 1, "aggregate_id": "k", "payload": {"x": 1}}


def stored(**changes) -> str:
    return json.dumps(GOOD | changes)


@pytest.mark.parametrize(
    "message", ["hello", "你好 🐉", 'quote " and \\ back', "nul \x00 and \u2028", "", "x" * 300_000]
)
def test_encode_wire_round_trips_when_the_message_is_unusual(message):
    text = encode_stored(event=make_event(message), event_id="e1", aggregate_id="k")

    outbox_id, envelope = decode_wire(encode_wire(outbox_id=7, event_id="e1", stored=text))

    assert outbox_id == 7
    assert (envelope.event_id, envelope.event_type, envelope.aggregate_id) == ("e1", EVENT_TYPE, "k")
    assert envelope.payload["message"] == message


def test_encode_stored_keeps_non_ascii_text_readable_in_the_table():
    assert "你好" in encode_stored(event=make_event("你好"), event_id="e1", aggregate_id="k")


def test_encode_wire_accepts_blanks_before_the_object():
    value = encode_wire(outbox_id=7, event_id="e1", stored=" \n\t" + stored())

    assert decode_wire(value) == (7, Envelope(**GOOD))


def test_decode_stored_ignores_fields_it_does_not_know():
    assert decode_stored(stored(traceparent="00-1")) == Envelope(**GOOD)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"text"',
        "12",
        "NaN",
        stored()[:-1],
        stored() + "x",
        "\ufeff" + stored(),
        "[" * 100_000 + "]" * 100_000,
        '{"payload":' * 50_000 + "1" + "}" * 50_000,
        '{"event_version":' + "9" * 5000 + "}",
    ],
)
def test_decode_stored_refuses_when_the_text_is_no_envelope(text):
    with pytest.raises(EnvelopeUnreadable):
        decode_stored(text)


@pytest.mark.parametrize("name", list(GOOD))
@pytest.mark.parametrize("wrong", [None, True, [], 1.5])
def test_decode_stored_names_the_field_when_its_type_is_wrong(name, wrong):
    with pytest.raises(EnvelopeUnreadable, match=name):
        decode_stored(stored(**{name: wrong}))


@pytest.mark.parametrize("name", list(GOOD))
def test_decode_stored_names_the_field_when_it_is_missing(name):
    with pytest.raises(EnvelopeUnreadable, match=name):
        decode_stored(json.dumps({key: value for key, value in GOOD.items() if key != name}))


def test_decode_stored_never_repeats_a_value_when_it_refuses():
    with pytest.raises(EnvelopeUnreadable) as refusal:
        decode_stored(stored(event_version="hunter2"))

    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("outbox_id", [None, "7", True, 7.0, [7]])
def test_decode_wire_refuses_when_the_outbox_id_is_no_number(outbox_id):
    with pytest.raises(EnvelopeUnreadable, match="outbox_id"):
        decode_wire(stored(outbox_id=outbox_id).encode())


@pytest.mark.parametrize("value", [b"", b"\xff\xfe\x00", b"\x80abc", b'{"event_id":"\xff"}', b"\x00\x00\x00\x00"])
def test_decode_wire_refuses_when_the_bytes_are_no_text(value):
    with pytest.raises(EnvelopeUnreadable):
        decode_wire(value)


def test_encode_wire_refuses_when_the_row_is_damaged():
    with pytest.raises(EnvelopeUnreadable, match="not JSON"):
        encode_wire(outbox_id=7, event_id="e1", stored=stored()[:-5])


def test_encode_wire_refuses_when_the_envelope_is_of_another_event():
    with pytest.raises(EnvelopeUnreadable, match="event_id is not the row's"):
        encode_wire(outbox_id=7, event_id="e2", stored=stored())


def test_encode_wire_refuses_when_the_envelope_names_another_row():
    with pytest.raises(EnvelopeUnreadable, match="outbox_id"):
        encode_wire(outbox_id=7, event_id="e1", stored=stored(outbox_id=8))
