"""The committed OpenAPI document is the API's: every route, every status it can answer with, and an example of each."""

import re
from io import StringIO
from pathlib import Path

import jsonschema
import pytest
import yaml
from django.conf import settings
from django.core.management import call_command
from django.urls import URLPattern, get_resolver
from rest_framework.views import APIView

from chat.api.run_routes import CHAT_PATH, RunRoutes
from smartflow.api.codes import AUTHENTICATION_CODES, CODES, IDEMPOTENCY_CODES
from smartflow.api.serializers import StrictSerializer
from tests.integration.api.openapi_reading import METHODS, as_json_schema, error_codes, operations, resolve, responses

COMMITTED = Path(settings.BASE_DIR) / "docs" / "openapi.yaml"
# Pages and the document itself are no part of what they show; metrics have their own format.
NO_PART = ("api/schema/", "api/docs/", "api/redoc/")
BODY_CODES = {"40004", "40005", "40006", "41300", "41500"}


@pytest.fixture(scope="module")
def generated():
    out = StringIO()
    call_command("spectacular", "--fail-on-warn", "--validate", stdout=out)
    return out.getvalue()


@pytest.fixture(scope="module")
def document(generated):
    return yaml.safe_load(generated)


def routes():
    """Yield the path and the class of every REST framework view in the URL conf."""

    def walk(patterns, prefix):
        for pattern in patterns:
            path = prefix + str(pattern.pattern)
            if not isinstance(pattern, URLPattern):
                yield from walk(pattern.url_patterns, path)
                continue
            view = getattr(pattern.callback, "view_class", getattr(pattern.callback, "cls", None))
            if isinstance(view, type) and issubclass(view, APIView) and path not in NO_PART:
                yield "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path), view

    return list(walk(get_resolver().url_patterns, ""))


def methods_of(view):
    return {name for name in METHODS - {"options"} if callable(getattr(view, name, None))}


def named(document, *, prefix="/api/v1/"):
    """The operations that answer in the envelope."""
    found = [(name, operation) for name, operation in operations(document, prefix=prefix) if "/health" not in name]
    assert len(found) >= 30
    return found


def test_the_committed_document_is_the_one_that_the_code_gives(generated):
    is_same = COMMITTED.read_bytes() == generated.encode()
    assert is_same, "docs/openapi.yaml is not what the code documents: run `make schema` and commit the file."


def test_every_route_is_documented_with_each_of_its_methods(document):
    found = routes()
    assert len(found) >= 35
    for path, view in found:
        assert set(document["paths"].get(path, ())) == methods_of(view), f"{path}: see @extend_schema of {view}"


def test_every_documented_route_exists(document):
    assert set(document["paths"]) == {path for path, _view in routes()}


def test_every_raw_route_is_documented(document):
    raw = {path: methods for path, methods in document["paths"].items() if RunRoutes.serves(path)}
    assert {(path, method) for path, methods in raw.items() for method in methods} == {
        (CHAT_PATH, "post"),
        ("/api/v1/agent/runs/{run_id}/events", "get"),
        ("/api/v1/agent/runs/{run_id}/stop", "post"),
        ("/api/v1/agent/runs/{run_id}/regenerate", "post"),
        ("/api/v1/agent/runs/{run_id}/continue", "post"),
    }


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(document):
    ids = [operation["operationId"] for _name, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for name, operation in operations(document):
        assert operation["description"].endswith((".", ")")), name
        assert operation["tags"], name


def test_every_documented_code_stands_below_its_status_and_has_an_example(document):
    for name, operation in named(document):
        for status, codes in error_codes(document, operation).items():
            assert {CODES[code].http_status for code in codes} <= {int(status)}, name
            assert codes or status.startswith("2"), f"{name}: {status} names no code"


def test_every_refusal_of_a_request_says_which_field_is_to_blame(document):
    found = 0
    for name, operation in named(document):
        for status, answer in responses(document, operation).items():
            if status in {"400", "422"}:
                shape = answer["content"]["application/json"]["schema"]["allOf"][1]
                assert shape["required"] == ["fields"], (name, status)
                found += 1
    assert found >= 30


def test_every_success_has_an_example(document):
    for name, operation in operations(document):
        answers = {s: answer for s, answer in responses(document, operation).items() if s.startswith("2")}
        assert answers, name
        for status, answer in answers.items():
            for media_type, content in answer["content"].items():
                assert content["examples"], (name, status, media_type)


def test_every_request_body_has_an_example(document):
    bodies = [operation["requestBody"] for _name, operation in operations(document) if "requestBody" in operation]
    assert len(bodies) >= 15
    for body in bodies:
        assert list(body["content"]) == ["application/json"]
        assert body["content"]["application/json"]["examples"]


def test_every_example_holds_to_its_shape(document):
    components = as_json_schema({"components": document["components"]})
    checked = 0
    for _name, operation in operations(document):
        contents = [answer.get("content", {}) for answer in responses(document, operation).values()]
        for content in [*contents, operation.get("requestBody", {}).get("content", {})]:
            shown = content.get("application/json", {"schema": {}, "examples": {}})
            schema = {**as_json_schema(shown["schema"]), **components}
            for example in shown["examples"].values():
                jsonschema.Draft202012Validator(schema).validate(resolve(document, example)["value"])
                checked += 1
    assert checked >= 300


def test_every_operation_that_needs_a_token_documents_every_code_of_tokens(document):
    for name, operation in named(document):
        codes = error_codes(document, operation).get("401", set())
        needs_token = operation.get("security") == [{"accessToken": []}]
        assert (set(AUTHENTICATION_CODES) <= codes) == needs_token, name


def test_every_operation_with_a_key_documents_every_code_of_keys(document):
    found = 0
    for name, operation in named(document):
        parameters = [resolve(document, parameter) for parameter in operation.get("parameters", ())]
        keys = [parameter for parameter in parameters if parameter["name"] == "X-Idempotency-Key"]
        codes = set().union(*error_codes(document, operation).values())
        has_key = bool(keys)
        found += has_key
        # Without a key a message is sent all the same, and what is at work already is read along with.
        needed = set(IDEMPOTENCY_CODES) - (set() if keys and keys[0].get("required") else {"40037", "40038"})
        assert not has_key or needed <= codes, name
        assert ("42200" in codes) == has_key, name
        header = "X-Idempotency-Replayed" in responses(document, operation).get("200", {}).get("headers", {})
        assert header == has_key, name
    assert found >= 9


def test_every_operation_with_a_body_documents_what_any_body_is_refused_for(document):
    for name, operation in named(document):
        codes = set().union(*error_codes(document, operation).values())
        if "requestBody" in operation:
            assert codes >= BODY_CODES, name


def test_every_operation_with_a_query_documents_that_it_may_be_wrong(document):
    for name, operation in named(document):
        places = {resolve(document, parameter)["in"] for parameter in operation.get("parameters", ())}
        codes = set().union(*error_codes(document, operation).values())
        assert "query" not in places or "40005" in codes, name
        assert "path" not in places or "40400" in codes, name


def test_every_operation_documents_limits_failures_and_their_headers(document):
    for name, operation in named(document):
        answers = responses(document, operation)
        assert {"429", "500", "503"} <= set(answers), name
        codes = error_codes(document, operation)
        assert "40033" in codes["429"], name
        assert {"500"} == codes["500"], name
        assert "50300" in codes["503"], name
        for status in ("429", "503"):
            assert resolve(document, answers[status]["headers"]["Retry-After"])["required"], name
        assert {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} <= set(answers["429"]["headers"]), name
        for status, answer in answers.items():
            assert resolve(document, answer["headers"]["X-Request-ID"])["required"], (name, status)


def test_every_shape_of_a_request_takes_no_other_fields(document):
    strict = {kind.__name__ for kind in _below(StrictSerializer)}
    shapes = {name: shape for name, shape in document["components"]["schemas"].items() if name in strict}
    assert len(shapes) >= 12
    assert [name for name, shape in shapes.items() if shape["additionalProperties"] is not False] == []


def test_every_link_leads_to_an_operation_and_a_parameter_of_it(document):
    known = {operation["operationId"]: operation for _name, operation in operations(document)}
    links = [
        link
        for _name, operation in operations(document)
        for answer in responses(document, operation).values()
        for link in answer.get("links", {}).values()
    ]
    assert len(links) >= 20
    for link in links:
        target = known[link["operationId"]]
        names = {resolve(document, parameter)["name"] for parameter in target.get("parameters", ())}
        assert set(link.get("parameters", ())) <= names, link
        if "requestBody" in link:
            shape = resolve(document, target["requestBody"]["content"]["application/json"]["schema"])
            assert set(link["requestBody"]) <= set(shape["properties"]), link


def _below(kind):
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)
