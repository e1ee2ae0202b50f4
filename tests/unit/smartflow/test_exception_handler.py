"""Every failure becomes one answer: code, status, envelope, headers."""

import logging

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions, serializers

from smartflow.api.exception_handler import error_response, handle
from smartflow.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable

SECRET = "mysql://smartflow:hunter2@db/smartflow"


class Busy(Conflict):
    """A conflict that says more."""

    code = "40910"
    message = "This conversation already has a live run."


class Uncoded(Conflict):
    """A mistake of ours: its code is in no table."""

    code = "99999"


class Row(serializers.Serializer):
    week = serializers.IntegerField()


class Form(serializers.Serializer):
    title = serializers.CharField(max_length=3)
    rows = Row(many=True, required=False)


def answer_of(data):
    with pytest.raises(exceptions.ValidationError) as caught:
        Form(data=data).is_valid(raise_exception=True)
    return error_response(caught.value)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Invalid(), 400, "40005"),
        (Forbidden(), 403, "40300"),
        (NotFound(), 404, "40400"),
        (Conflict(), 409, "40900"),
        (Unavailable(), 503, "50300"),
        (exceptions.NotAuthenticated(), 401, "40009"),
        (exceptions.AuthenticationFailed(), 401, "40011"),
        (exceptions.PermissionDenied(), 403, "40300"),
        (PermissionDenied(), 403, "40300"),
        (Http404(SECRET), 404, "40400"),
        (exceptions.MethodNotAllowed("PUT"), 405, "40500"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "41500"),
        (RequestDataTooBig(SECRET), 413, "41300"),
        (SuspiciousOperation(SECRET), 400, "40005"),
        (OperationalError(2002, SECRET), 503, "50300"),
        (InterfaceError(SECRET), 503, "50300"),
        (RuntimeError(SECRET), 500, "500"),
        (Uncoded(), 500, "500"),
    ],
)
def test_error_response_maps_each_kind_and_leaks_nothing(error, status, code):
    found, body, headers = error_response(error)
    assert (found, body["status"]) == (status, code)
    assert isinstance(body["status"], str)
    assert "data" not in body
    assert body["info"]
    assert "hunter2" not in str(body)
    assert ("WWW-Authenticate" in headers) == (status == 401)
    assert ("Retry-After" in headers) == (status in {429, 503})


def test_error_response_carries_a_domain_errors_words_fields_and_extras():
    error = Busy("One at a time.", fields={"message": "Wait."}, run_id="r1", retry_after_seconds=2.2)
    status, body, headers = error_response(error)
    assert (status, headers) == (409, {"Retry-After": "3"})
    assert {k: body[k] for k in ("status", "info", "fields", "run_id")} == {
        "status": "40910",
        "info": "One at a time.",
        "fields": {"message": "Wait."},
        "run_id": "r1",
    }


def test_error_response_tells_a_throttled_client_how_long_to_wait():
    status, body, headers = error_response(exceptions.Throttled(wait=6.1))
    assert (status, body["status"], headers["Retry-After"]) == (429, "40033", "7")


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        ({}, "40004", "title"),
        ({"title": None}, "40004", "title"),
        ({"title": ""}, "40004", "title"),
        ({"title": "abcd"}, "40006", "title"),
        ({"title": {}}, "40005", "title"),
        ({"title": "a", "rows": [{"week": 1}, {"week": "x"}]}, "40005", "rows.1.week"),
        ({"title": "a", "rows": [{}]}, "40004", "rows.0.week"),
        ({"title": "a", "rows": 7}, "40005", "rows"),
        ([], "40005", "body"),
    ],
)
def test_error_response_names_the_field_and_what_to_do(data, code, field):
    status, body, _headers = answer_of(data)
    assert (status, body["status"]) == (400, code)
    assert list(body["fields"]) == [field]
    assert body["fields"][field]


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (Invalid("Name at least one field to change."), "body"),
        (exceptions.ParseError("The body is not valid JSON."), "body"),
        (SuspiciousOperation("forged"), "request"),
    ],
)
def test_error_response_blames_the_whole_when_no_field_is_to_blame(error, place):
    status, body, _headers = error_response(error)
    assert (status, list(body["fields"])) == (400, [place])
    assert body["fields"][place] == body["info"]


def test_handle_logs_the_traceback_of_the_unexpected_only(caplog):
    with caplog.at_level(logging.INFO):
        assert handle(NotFound(), {}).status_code == 404
        assert caplog.records == []
        assert handle(RuntimeError(SECRET), {}).status_code == 500
    assert [record.exc_info[0] for record in caplog.records] == [RuntimeError]
