"""The envelope: its keys, and what never gets into it."""

import json

import pytest
from rest_framework.response import Response

from smartflow.api.envelope import NO_DATA, EnvelopeJSONRenderer, failure, success, to_json
from smartflow.observability.request_id import accept_request_id


def rendered(data, *, status=200, exception=False):
    response = Response(data, status=status, exception=exception)
    return EnvelopeJSONRenderer().render(data, renderer_context={"response": response})


def test_success_tells_no_data_from_null():
    assert success() == {"status": "10000", "info": "success"}
    assert success(None) == {"status": "10000", "info": "success", "data": None}


def test_failure_carries_the_request_id_and_no_data():
    accept_request_id("request-12345")
    body = failure("40910", extra={"run_id": "r1", "data": "never", "status": "never"})
    assert body == {
        "run_id": "r1",
        "status": "40910",
        "info": "This conversation already has a live run.",
        "request_id": "request-12345",
    }


def test_to_json_writes_text_as_it_is_and_survives_lone_surrogates():
    assert to_json({"a": "学习😀"}) == '{"a":"学习😀"}'.encode()
    assert json.loads(to_json({"a": "x\ud800"})) == {"a": "x\ud800"}


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1000, 1001])
def test_to_json_writes_a_long_list_in_parts_and_the_same(count):
    body = success([{"id": number, "title": '学习 "\ud800"'} for number in range(count)])

    plain = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
    assert to_json(body) == plain


def test_renderer_wraps_what_a_view_returns():
    assert json.loads(rendered({"id": 1})) == {"status": "10000", "info": "success", "data": {"id": 1}}
    assert json.loads(rendered(None)) == {"status": "10000", "info": "success", "data": None}
    assert json.loads(rendered(NO_DATA)) == {"status": "10000", "info": "success"}


def test_renderer_passes_errors_through_and_leaves_204_empty():
    assert json.loads(rendered({"status": "40400"}, status=404, exception=True)) == {"status": "40400"}
    assert rendered(None, status=204) == b""
