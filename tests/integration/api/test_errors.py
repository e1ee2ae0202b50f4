"""What a client sees when something fails: an envelope with a request id, never the raw text."""

import logging

import pytest
from django.db import OperationalError, connection
from django.test import RequestFactory

from smartflow.accounts import queries
from smartflow.api import django_errors

REGISTER = "/api/v1/user/register"
ME = "/api/v1/user/me"
SECRET = "hunter2 at /srv/smartflow/secrets.json"


def raise_secret(*args, **kwargs):
    raise RuntimeError(SECRET)


def test_an_unexpected_failure_answers_a_fixed_sentence_and_logs_the_traceback(alice_client, monkeypatch, caplog):
    monkeypatch.setattr(queries, "get_profile", raise_secret)
    with caplog.at_level(logging.ERROR):
        answer = alice_client.get(ME, headers={"X-Request-ID": "my-request-1"})
    assert (answer.status_code, answer.json()["status"]) == (500, "500")
    assert answer.json()["request_id"] == answer["X-Request-ID"] == "my-request-1"
    assert "hunter2" not in answer.content.decode()
    assert SECRET in "".join(str(record.exc_info[1]) for record in caplog.records if record.exc_info)


def test_a_database_that_is_away_answers_503_with_retry_after(alice_client):
    def refuse(*args):
        raise OperationalError(2002, SECRET)

    with connection.execute_wrapper(refuse):
        answer = alice_client.get(ME)
    assert (answer.status_code, answer.json()["status"]) == (503, "50300")
    assert int(answer["Retry-After"]) > 0
    assert "hunter2" not in answer.content.decode()


@pytest.mark.parametrize("path", ["/api/v1/nope", "/api/nope", "/health/nope"])
def test_an_unknown_api_path_answers_the_envelope(anonymous, path):
    answer = anonymous.get(path)
    assert (answer.status_code, answer.json()["status"]) == (404, "40400")
    assert answer.json()["request_id"] == answer["X-Request-ID"]


def test_an_unknown_page_keeps_djangos_answer(anonymous):
    answer = anonymous.get("/nope")
    assert (answer.status_code, answer["Content-Type"]) == (404, "text/html; charset=utf-8")


def test_a_refused_host_answers_the_envelope(anonymous, caplog):
    answer = anonymous.get("/api/v1/health", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["status"]) == (400, "40005")


@pytest.mark.parametrize(
    ("view", "status", "code"),
    [
        (lambda request: django_errors.bad_request(request, ValueError(SECRET)), 400, "40005"),
        (lambda request: django_errors.permission_denied(request, ValueError(SECRET)), 403, "40300"),
        (lambda request: django_errors.page_not_found(request, ValueError(SECRET)), 404, "40400"),
        (django_errors.server_error, 500, "500"),
        (lambda request: django_errors.csrf_failure(request, reason=SECRET), 403, "40300"),
    ],
)
def test_djangos_own_failures_answer_the_envelope_below_api_only(view, status, code):
    api, page = (view(RequestFactory().get(path)) for path in ("/api/v1/x", "/x"))
    assert (api.status_code, page.status_code) == (status, status)
    assert api["Content-Type"] == "application/json"
    assert f'"status":"{code}"' in api.content.decode()
    assert "hunter2" not in api.content.decode()
    assert "<" in page.content.decode()


def test_a_wrong_method_answers_405_with_allow(anonymous):
    answer = anonymous.get(REGISTER)
    assert (answer.status_code, answer.json()["status"]) == (405, "40500")
    assert "POST" in answer["Allow"]


def test_another_media_type_answers_415(db, anonymous):
    answer = anonymous.post(REGISTER, "username=x", content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.json()["status"]) == (415, "41500")


def test_a_body_over_the_limit_answers_413(db, anonymous, settings):
    body = '{"username":"' + "x" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE + '"}'
    answer = anonymous.post(REGISTER, body, content_type="application/json")
    assert (answer.status_code, answer.json()["status"]) == (413, "41300")


@pytest.mark.parametrize(
    "body", ["{", "", "[]", "7", "null", "[" * 100_000, '{"username": NaN}', b"\xff\xfe", '{"username": "\\ud800"}']
)
def test_a_body_that_is_no_json_object_answers_400(db, anonymous, body):
    answer = anonymous.generic("POST", REGISTER, body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["status"] in {"40004", "40005"}


def test_a_format_nobody_offers_is_answered_in_json(alice_client):
    answer = alice_client.get(ME, headers={"Accept": "text/html"})
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


def test_messages_of_the_frameworks_follow_the_language_asked_for(db, anonymous):
    body = {"username": "carol", "password": "1"}
    answer = anonymous.post(REGISTER, body, format="json", headers={"Accept-Language": "zh-hans"})
    assert answer["Content-Language"] == "zh-hans"
    assert "密码" in answer.json()["fields"]["password"]


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        ({"username": {"a": [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}}, "40005", "username.a" + ".0" * 18),
        ({"username": "a", "password": "x" * 262_145}, "40006", "password"),
        ({"username": ["a"] * 1001}, "40006", "username"),
        ({"username": "a\0"}, "40005", "username"),
        ({"usrname": "a"}, "40005", "usrname"),
    ],
)
def test_a_body_beyond_a_bound_is_refused_by_the_name_of_what_is_too_much(anonymous, body, code, place):
    answer = anonymous.post(REGISTER, body, format="json")
    assert (answer.status_code, answer.json()["status"]) == (400, code)
    assert list(answer.json()["fields"]) == [place]
