"""The code table: complete, truthful, and the only place codes and statuses meet."""

import importlib
import pkgutil

import pytest

import chat
import outbox
import schedule
import smartflow
import tasks
from smartflow.api.codes import CODES
from smartflow.kernel.errors import Conflict, DomainError, Forbidden, NotFound, Unavailable

# Importing an entry point starts the application a second time.
ENTRY_POINTS = {"smartflow.asgi", "smartflow.wsgi"}
ALLOWED = {NotFound: {404}, Conflict: {409}, Unavailable: {429, 503}, Forbidden: {401, 403}}


def every_domain_error():
    for package in (smartflow, outbox, tasks, schedule, chat):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in ENTRY_POINTS and ".migrations" not in module.name:
                importlib.import_module(module.name)
    waiting, found = [DomainError], set()
    while waiting:
        for kind in waiting.pop().__subclasses__():
            if kind not in found and not kind.__module__.startswith("tests"):
                found.add(kind)
                waiting.append(kind)
    return found


def test_every_domain_error_has_a_code_of_the_table_and_a_status_of_its_kind():
    errors = every_domain_error()
    assert len(errors) > 10
    for error in errors:
        assert error.code in CODES, error
        for kind, statuses in ALLOWED.items():
            if issubclass(error, kind):
                assert CODES[error.code].http_status in statuses, error


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (200, "10000 10001 10002 10003"),
        (401, "40007 40009 40011 40012 40014 40015 40016 40017"),
        (403, "40021 40300"),
        (404, "40400 40401 40055"),
        (409, "40003 40038 40900 40910"),
        (429, "40033 40051"),
        (400, "40004 40005 40006 40037"),
        (500, "500"),
        (503, "50300 50301 50004"),
    ],
)
def test_codes_answer_with_a_status_that_tells_the_truth(status, codes):
    assert {code: CODES[code].http_status for code in codes.split()} == dict.fromkeys(codes.split(), status)


def test_codes_cover_the_whole_table_of_the_reference():
    reference = [*range(10000, 10004), *range(40001, 40065), 40401, *range(50001, 50005)]
    assert {str(code) for code in reference} <= set(CODES)


def test_codes_are_text_and_have_a_meaning():
    assert all(isinstance(code, str) and row.code == code and row.meaning for code, row in CODES.items())
