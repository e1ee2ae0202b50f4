"""Failures by name: what a status and its words mean, and what may be said of them."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import openai
import pytest

from chat.llm import failures
from chat.llm.failures import broken_stream, scrubbed, translated
from chat.llm.port import (
    MAX_DETAIL_BYTES,
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

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REQUEST = httpx2.Request("POST", "https://secret-host.test/v1/chat/completions")
KINDS = ModelError.__subclasses__()


def status_error(status: int, *, body: Any = None, headers: dict[str, str] | None = None) -> openai.APIStatusError:
    response = httpx2.Response(status, request=REQUEST, headers=headers or {})
    return openai.APIStatusError("raw", response=response, body=body)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ModelRejectedRequest),
        (401, ModelRefusedCredentials),
        (402, ModelRefusedCredentials),
        (403, ModelRefusedCredentials),
        (404, ModelRejectedRequest),
        (408, ModelServerError),
        (413, ModelContextTooLong),
        (422, ModelRejectedRequest),
        (429, ModelRateLimited),
        (500, ModelServerError),
        (503, ModelServerError),
        (529, ModelServerError),
    ],
)
def test_translated_names_a_status(status: int, kind: type[ModelError]) -> None:
    assert type(translated(status_error(status))) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": "context_length_exceeded"}, ModelContextTooLong),
        (400, {"message": "This model's maximum context length is 8192 tokens."}, ModelContextTooLong),
        (400, [{"error": {"message": "The input token count: prompt is too long"}}], ModelContextTooLong),
        (400, "上下文长度超过限制", ModelContextTooLong),
        (400, {"code": "content_filter"}, ModelRejectedRequest),
        (429, {"code": "insufficient_quota"}, ModelRefusedCredentials),
        (429, {"message": "Rate limit. Visit /account/billing to raise your token limit"}, ModelRateLimited),
        (500, {"message": "context length"}, ModelServerError),
    ],
)
def test_translated_reads_the_words_where_the_status_does_not_tell(
    status: int, body: Any, kind: type[ModelError]
) -> None:
    assert type(translated(status_error(status, body=body))) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ConnectError("refused"), ModelUnreachable),
        (httpx2.ConnectTimeout("slow"), ModelUnreachable),
        (httpx2.PoolTimeout("full"), ModelUnreachable),
        (httpx2.ReadTimeout("silent"), ModelTimedOut),
        (httpx2.WriteTimeout("stuck"), ModelTimedOut),
        (httpx2.RemoteProtocolError("gone"), ModelUnreachable),
        (httpx2.DecodingError("not gzip"), ModelBadResponse),
        (ConnectionResetError("reset"), ModelUnreachable),
    ],
)
def test_translated_names_a_failure_of_the_connection(error: Exception, kind: type[ModelError]) -> None:
    assert type(translated(error)) is kind
    wrapped = openai.APIConnectionError(request=REQUEST)
    wrapped.__cause__ = error
    assert type(translated(wrapped)) is kind


def test_broken_stream_is_a_cut_unless_it_was_silence() -> None:
    assert type(broken_stream(httpx2.RemoteProtocolError("gone"))) is ModelCut
    assert type(broken_stream(httpx2.ReadTimeout("silent"))) is ModelTimedOut


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.2"}, 1),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 2),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "999999999"}, 3600),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=30), usegmt=True)}, 30),
        ({"retry-after": format_datetime(NOW - timedelta(days=1), usegmt=True)}, 0),
    ],
)
def test_translated_reads_retry_after(
    headers: dict[str, str], seconds: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "utc_now", lambda: NOW)
    assert translated(status_error(429, headers=headers)).retry_after_seconds == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abcdef0123456789",
        "Authorization: Bearer abc.def.ghi",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "key 0123456789abcdef0123456789abcdef",
        "cannot connect to https://user:pw@secret-host.test:8443/v1?key=1",
        "connect 10.1.2.3:8000 failed",
        "mail ops@secret-host.test",
    ],
)
def test_scrubbed_takes_keys_and_addresses_out(text: str) -> None:
    for secret in ("abcdef0123", "abc.def", "eyJ", "secret-host", "10.1.2.3"):
        assert secret not in scrubbed(text)


def test_detail_is_bounded_and_on_one_line() -> None:
    error = translated(status_error(500, body={"message": "课\n" * 100_000}))
    assert len(error.detail.encode()) <= MAX_DETAIL_BYTES
    assert "\n" not in error.detail


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_message_is_fixed_whatever_the_provider_said(kind: type[ModelError]) -> None:
    error = kind("sk-proj-abcdef0123456789 at https://secret-host.test")
    assert str(error) == error.message == kind.message
    assert kind.message.endswith(".")


def test_codes_are_unique_and_stable() -> None:
    assert sorted(kind.code for kind in KINDS) == [
        "model_bad_response",
        "model_context_too_long",
        "model_cut",
        "model_empty_answer",
        "model_filtered_answer",
        "model_rate_limited",
        "model_reached_length",
        "model_refused_credentials",
        "model_rejected_request",
        "model_server_error",
        "model_timeout",
        "model_unreachable",
    ]
