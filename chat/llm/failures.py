"""What went wrong with a model call, named: exceptions and error objects in, the port's ModelError out.

Called by openai_client.py and chunks.py. The student sees a fixed sentence; the log gets a bounded detail without
keys or addresses, since providers quote the key and the URL in their own messages.
"""

import email.utils
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import httpx2
import openai

from chat.llm.port import (
    ModelBadResponse,
    ModelContextTooLong,
    ModelCut,
    ModelError,
    ModelRateLimited,
    ModelRefusedCredentials,
    ModelRejectedRequest,
    ModelServerError,
    ModelTimedOut,
    ModelUnreachable,
)
from smartflow.kernel.clock import utc_now

MAX_RETRY_AFTER_SECONDS = 3600
_MAX_READ_CHARACTERS = 2000

_SECRETS = re.compile(r"(?i)\b(?:sk|pk|key|api)[-_][\w*.-]{6,}|bearer\s+\S+|\beyJ[\w-]{10,}[\w.-]*|\b[0-9a-f]{32,}\b")
_ADDRESSES = re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://\S+|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b|\b[\w.+-]+@[\w.-]+\b")
_TOO_LONG = re.compile(
    r"(?i)context[ _-]?(?:length|window|size)|maximum (?:context|prompt|input) |too many (?:input )?tokens"
    r"|(?:prompt|input|request) (?:is |was )?too (?:long|large)|input length"
    r"|上下文.{0,8}(?:超|长)|超出.{0,6}长度"
)
# Not the word billing: a plain rate limit points to the billing page too.
_NO_CREDIT = re.compile(r"(?i)insufficient[_ ](?:quota|balance|funds|credit)|exceeded your current quota|欠费|余额不足")
_MAY_BE_TOO_LONG = {400, 413, 422}
_BY_STATUS: dict[int, type[ModelError]] = {
    401: ModelRefusedCredentials,
    402: ModelRefusedCredentials,
    403: ModelRefusedCredentials,
    408: ModelServerError,
    413: ModelContextTooLong,
    425: ModelServerError,
    429: ModelRateLimited,
}
_BY_WORD: tuple[tuple[re.Pattern[str], type[ModelError]], ...] = (
    (re.compile(r"rate.?limit|too_many_requests|\b429\b|throttl"), ModelRateLimited),
    (re.compile(r"invalid.?api.?key|authentication|permission|unauthorized|\b40[13]\b"), ModelRefusedCredentials),
    (re.compile(r"invalid_request|content_filter|model_not_found|\b4(?:00|04|22)\b"), ModelRejectedRequest),
)


def scrubbed(text: str) -> str:
    """Return text without what looks like a key, an address or a mail address, on one line."""
    plain = " ".join(text[:_MAX_READ_CHARACTERS].split())
    return _ADDRESSES.sub("[address]", _SECRETS.sub("[secret]", plain))


def upstream_error(error: object) -> ModelError:
    """Return the failure that an error object in the middle of a stream stands for."""
    words = _words(error)
    short = _words(error, names=("code", "type", "status")).lower()
    by_word = (kind for pattern, kind in _BY_WORD if pattern.search(short))
    if _NO_CREDIT.search(words):
        kind: type[ModelError] = ModelRefusedCredentials
    elif _TOO_LONG.search(words):
        kind = ModelContextTooLong
    else:
        kind = next(by_word, ModelServerError)
    return kind(scrubbed(f"in the stream: {words}"))


def translated(error: Exception) -> ModelError:
    """Return the failure that an exception of the openai client or of its connection stands for."""
    if isinstance(error, openai.APIStatusError):
        return _status_error(error)
    causes = (error, error.__cause__)
    detail = scrubbed(f"{type(error).__name__}: {error.__cause__ or error}")
    if any(isinstance(cause, httpx2.ConnectTimeout | httpx2.PoolTimeout) for cause in causes):
        return ModelUnreachable(detail)
    if any(isinstance(cause, openai.APITimeoutError | httpx2.TimeoutException | TimeoutError) for cause in causes):
        return ModelTimedOut(detail)
    if any(isinstance(cause, httpx2.DecodingError | httpx2.TooManyRedirects) for cause in causes):
        return ModelBadResponse(detail)
    return ModelUnreachable(detail)


def broken_stream(error: Exception) -> ModelError:
    """Return the failure of a connection that broke after the answer's head had come."""
    failure = translated(error)
    return ModelCut(failure.detail) if isinstance(failure, ModelUnreachable) else failure


def _status_error(error: openai.APIStatusError) -> ModelError:
    status, words = error.status_code, _words(error.body)
    kind = _BY_STATUS.get(status) or (ModelServerError if status >= 500 else ModelRejectedRequest)
    if status in _MAY_BE_TOO_LONG and _TOO_LONG.search(words):
        kind = ModelContextTooLong
    elif status < 500 and _NO_CREDIT.search(words):
        kind = ModelRefusedCredentials
    retry_after = _retry_after_seconds(error.response.headers, now=utc_now())
    return kind(scrubbed(f"HTTP {status}: {words}"), retry_after_seconds=retry_after)


def _words(error: object, names: tuple[str, ...] = ("code", "type", "status", "message")) -> str:
    if isinstance(error, list) and error:
        return _words(error[0], names)
    if isinstance(error, Mapping):
        inner = error.get("error")
        if inner and not isinstance(inner, str):
            return _words(inner, names)
        return " ".join(str(error[name])[:_MAX_READ_CHARACTERS] for name in names if error.get(name))
    return error[:_MAX_READ_CHARACTERS] if isinstance(error, str) and "message" in names else ""


def _retry_after_seconds(headers: Mapping[str, str], *, now: datetime) -> int | None:
    """Return how long the provider asks to wait, in whole seconds from 0 to an hour; None when it does not say."""
    raw, scale = headers.get("retry-after-ms"), 0.001
    if raw is None:
        raw, scale = headers.get("retry-after"), 1.0
    if raw is None:
        return None
    try:
        seconds = float(raw) * scale
    except ValueError:
        seconds = _seconds_until(raw, now=now)
    return min(MAX_RETRY_AFTER_SECONDS, max(0, math.ceil(seconds))) if math.isfinite(seconds) else None


def _seconds_until(http_date: str, *, now: datetime) -> float:
    try:
        at = email.utils.parsedate_to_datetime(http_date)
    except ValueError:
        return math.nan
    return (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
