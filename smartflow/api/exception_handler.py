"""Turns every failure of a request into one answer: a code, its HTTP status, an envelope. Nothing raw gets out.

`error_response` is pure and serves the raw ASGI endpoints too; `handle` is Django REST framework's hook.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, UnreadablePostError
from django.utils.translation import gettext
from rest_framework import exceptions
from rest_framework.response import Response

from smartflow.api import codes
from smartflow.api.envelope import failure
from smartflow.kernel.errors import DomainError, Invalid

logger = logging.getLogger(__name__)

# Smaller: a recovering part is hit again before it is up. Larger: people wait longer than they need to.
RETRY_AFTER_SECONDS = 2

Answer = tuple[int, dict[str, Any], dict[str, str]]

# First match wins, so a subclass stands before its base.
_CODE_OF: tuple[tuple[type[BaseException], str], ...] = (
    (exceptions.NotAuthenticated, codes.TOKEN_MISSING),
    (exceptions.AuthenticationFailed, codes.TOKEN_INVALID),
    (exceptions.PermissionDenied, codes.FORBIDDEN),
    (PermissionDenied, codes.FORBIDDEN),
    (exceptions.NotFound, codes.NOT_FOUND),
    (Http404, codes.NOT_FOUND),
    (exceptions.MethodNotAllowed, codes.METHOD_NOT_ALLOWED),
    (exceptions.NotAcceptable, codes.NOT_ACCEPTABLE),
    (exceptions.UnsupportedMediaType, codes.UNSUPPORTED_MEDIA_TYPE),
    (exceptions.Throttled, codes.TOO_MANY_REQUESTS),
    (RequestDataTooBig, codes.BODY_TOO_LARGE),
    (SuspiciousOperation, codes.WRONG),
    (BadRequest, codes.WRONG),
    (UnreadablePostError, codes.WRONG),
    (OperationalError, codes.UNAVAILABLE),
    (InterfaceError, codes.UNAVAILABLE),
)
_MISSING = {"required", "null", "blank", "empty"}
_TOO_LONG = {"max_length", "max_string_length"}


def error_response(exc: BaseException) -> Answer:
    """
    Return the HTTP status, the envelope and the headers that answer `exc`.

    Twice: pure, apart from reading the current language and request id; it logs nothing.
    """
    if isinstance(exc, DomainError):
        return _of_domain_error(exc)
    if isinstance(exc, exceptions.ValidationError):
        return _of_validation_error(exc)
    if isinstance(exc, exceptions.ParseError):
        return _answer(codes.WRONG, failure(codes.WRONG, str(exc.detail), fields={"body": str(exc.detail)}))
    code = next((code for kind, code in _CODE_OF if isinstance(exc, kind)), codes.UNEXPECTED)
    wait = getattr(exc, "wait", None)
    fields = {"request": gettext(codes.CODES[code].meaning)} if codes.CODES[code].http_status == 400 else None
    return _answer(code, failure(code, fields=fields), retry_after=math.ceil(wait) if wait else None)


def handle(exc: Exception, context: dict[str, Any]) -> Response:
    """Answer `exc` inside a view. Anything unexpected is logged with its traceback; the answer holds none of it."""
    status, body, headers = error_response(exc)
    log_failure(exc, status)
    return Response(body, status=status, headers=headers)


def log_failure(exc: BaseException, status: int) -> None:
    """Log what an operator must see: failures of ours. What a client did wrong is in its answer."""
    if isinstance(exc, DomainError) or status < 500:
        return
    if isinstance(exc, OperationalError | InterfaceError):
        logger.error("The database did not do its part.", exc_info=exc)
    else:
        logger.error("A request failed unexpectedly.", exc_info=exc)


def _answer(code: str, body: dict[str, Any], *, retry_after: int | None = None) -> Answer:
    status = codes.CODES[code].http_status
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if retry_after is not None or status in {429, 503}:
        headers["Retry-After"] = str(retry_after or RETRY_AFTER_SECONDS)
    return status, body, headers


def _of_domain_error(exc: DomainError) -> Answer:
    if exc.code not in codes.CODES:
        return _answer(codes.UNEXPECTED, failure(codes.UNEXPECTED))
    extra = dict(exc.extra)
    wait = extra.pop("retry_after_seconds", None)
    info = gettext(exc.detail or exc.message)
    fields = {name: gettext(text) for name, text in exc.fields.items() if text}
    if isinstance(exc, Invalid) and not fields:
        fields = {"body": info}  # nothing in it is wrong by itself
    body = failure(exc.code, info, fields=fields, extra=extra)
    status, body, headers = _answer(exc.code, body, retry_after=math.ceil(wait) if wait else None)
    return status, body, headers | getattr(exc, "headers", {})


def _of_validation_error(exc: exceptions.ValidationError) -> Answer:
    found: dict[str, tuple[str, str]] = {}
    _collect(exc.detail, "", lambda path, detail: found.setdefault(path, _hint(detail)))
    kinds = {kind for kind, _text in found.values()}
    code = next((c for c in (codes.MISSING, codes.TOO_LONG) if c in kinds), codes.WRONG)
    return _answer(code, failure(code, fields={path: text for path, (_kind, text) in found.items()}))


def _collect(detail: Any, path: str, found: Callable[[str, Any], Any]) -> None:
    """Walk DRF's nested details; report each leaf with its dotted path, the first leaf of a field first."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            is_about_parent = key == "non_field_errors"
            _collect(value, path if is_about_parent else f"{path}.{key}".lstrip("."), found)
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            is_row = isinstance(value, dict | list)
            _collect(value, f"{path}.{index}".lstrip(".") if is_row else path, found)
    else:
        found(path or "body", detail)


def _hint(detail: Any) -> tuple[str, str]:
    """Return the code one field's error stands for, and what to do about it."""
    code = getattr(detail, "code", "")
    if code in _MISSING:
        return codes.MISSING, gettext("Give this field a value: it is required and may not be empty.")
    return (codes.TOO_LONG if code in _TOO_LONG else codes.WRONG), str(detail)
