"""smartflow/api/json_limits.py: every bound, and the name of what breaks it."""

import json
import tracemalloc

import pytest
from rest_framework.exceptions import ParseError

from smartflow.api.json_limits import JsonRefused, JsonTooLong, read_json


@pytest.fixture(autouse=True)
def _small(settings):
    settings.JSON_MAX_DEPTH = 4
    settings.JSON_MAX_STRING_CHARACTERS = 10
    settings.JSON_MAX_LIST_ITEMS = 5
    settings.JSON_MAX_VALUES = 12


@pytest.mark.parametrize(
    "values",
    [
        {},
        None,
        "0123456789",
        {"a": {"b": {"c": {}}}},
        {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3, 4, 5]},
        {"name": "字😀", "n": 1.5},
    ],
)
def test_read_json_takes_what_is_within_the_bounds(values):
    assert read_json(json.dumps(values).encode()) == values


@pytest.mark.parametrize(
    ("body", "error", "place", "says"),
    [
        ('{"a":{"b":{"c":{"d":{}}}}}', JsonRefused, "a.b.c.d", "4 levels"),
        ('{"a":[[[[]]]]}', JsonRefused, "a.0.0.0", "4 levels"),
        ("[" * 100_000, JsonRefused, "body", "4 levels"),
        ('{"a":{"b":"01234567890"}}', JsonTooLong, "a.b", "10 characters"),
        ('{"01234567890":1}', JsonTooLong, "body", "10 characters"),
        ('{"items":[{"ids":[1,2,3,4,5,6]}]}', JsonTooLong, "items.0.ids", "5 items"),
        ('{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}', JsonTooLong, "body", "5 items"),
        ('{"a":[1,2,3,4,5],"b":[1,2,3,4,5],"c":1}', JsonTooLong, "body", "12 values"),
        ('{"a":"x\\u0000"}', JsonRefused, "a", "NUL"),
        ('{"x\\u0000":1}', JsonRefused, "body", "NUL"),
        ('{"a":["x","\\ud800"]}', JsonRefused, "a.1", "surrogate"),
        ('{"\\udc00":1}', JsonRefused, "body", "surrogate"),
        ('{"a":1e999}', JsonRefused, "a", "infinite"),
    ],
)
def test_read_json_names_the_place_and_the_bound(body, error, place, says):
    with pytest.raises(error) as caught:
        read_json(body.encode())
    assert list(caught.value.fields) == [place]
    assert says in caught.value.fields[place]


@pytest.mark.parametrize("body", [b"", b"{", b"{'a':1}", b"\xff\xff", b'{"a":NaN}', b"[Infinity]", b"1" * 5000, b"1 2"])
def test_read_json_refuses_what_is_no_json(body):
    with pytest.raises(ParseError):
        read_json(body)


def test_read_json_needs_memory_in_the_order_of_the_body(settings):
    """A long name above many values is not written down with each of them."""
    settings.JSON_MAX_STRING_CHARACTERS, settings.JSON_MAX_LIST_ITEMS, settings.JSON_MAX_VALUES = 10**6, 1000, 20_000
    body = json.dumps({"n" * 200_000: {str(number): [0] * 10 for number in range(1000)}}).encode()
    tracemalloc.start()
    read_json(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(body)
