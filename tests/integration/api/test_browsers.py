"""What browsers are told: by Django's routes and by the raw ones, and the same by both."""

import asyncio
import os
import subprocess
import sys

import pytest

from smartflow.api.raw_edge import RawEdge
from tests.architecture.project_tree import ROOT

OURS, THEIRS = "https://app.example.edu", "https://evil.example"
ME, CHAT = "/api/v1/user/me", "/api/v1/agent/chat"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
PRODUCTION = {
    "SMARTFLOW_HTTPS": "proxy",
    "SECURE_HSTS_SECONDS": "31536000",
    "SECURE_HSTS_SCOPE": "preload",
    "SMARTFLOW_ALLOWED_HOSTS": "smartflow.example.edu",
    "SMARTFLOW_CSRF_TRUSTED_ORIGINS": "https://smartflow.example.edu",
    "CORS_ALLOWED_ORIGINS": OURS,
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "SECRET_KEY": "check-only-2JX5vOqYb1rT8mKcWz4hNfGsLpAeUdRiQy7-0123456789",
    "JWT_ACCESS_SECRET": "check-only-access-0123456789-0123456789",
    "JWT_REFRESH_SECRET": "check-only-refresh-0123456789-0123456789",
}

pytestmark = pytest.mark.django_db


def ask_raw(method, *, scheme="http", **headers):
    """Ask a raw route behind its edge; return the answer's status, headers and body."""

    async def route(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-run-id", b"7")]})
        await send({"type": "http.response.body", "body": b"data"})

    sent = []

    async def send(message):
        sent.append(message)

    named = {"host": "localhost", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": CHAT,
        "scheme": scheme,
        "query_string": b"",
        "headers": [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in named.items()],
    }
    asyncio.run(RawEdge(route)(scope, None, send))
    start, body = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


@pytest.fixture
def _allow_ours(settings):
    settings.CORS_ALLOWED_ORIGINS = [OURS]


def told(headers):
    """What an answer's headers say to a browser, the content's own left out."""
    own = {"content-type", "content-language", "content-length", "x-request-id", "x-run-id", "allow", "x-frame-options"}
    said = {name.lower(): value for name, value in headers.items() if name.lower() not in own}
    return said | {"vary": "origin" if "origin" in said.get("vary", "") else ""}


@pytest.mark.usefixtures("_allow_ours")
def test_a_preflight_of_an_allowed_origin_is_answered(anonymous):
    status, headers, body = ask_raw("OPTIONS", Origin=OURS, **PREFLIGHT)
    answer = anonymous.options(ME, headers={"Origin": OURS, **PREFLIGHT})

    assert (status, body) == (answer.status_code, answer.content) == (200, b"")
    assert told(headers) == told(answer.headers)
    assert headers["access-control-allow-origin"] == OURS
    assert {"authorization", "x-idempotency-key", "last-event-id"} <= set(
        headers["access-control-allow-headers"].split(", ")
    )
    assert "POST" in headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in headers


@pytest.mark.usefixtures("_allow_ours")
def test_an_allowed_origin_may_read_answers_and_their_headers(alice_client):
    status, headers, body = ask_raw("POST", Origin=OURS)
    answer = alice_client.get(ME, headers={"Origin": OURS})

    assert (status, body, headers["x-run-id"]) == (200, b"data", "7")
    assert told(headers) == told(answer.headers)
    assert headers["access-control-allow-origin"] == OURS
    assert {"x-run-id", "retry-after"} <= set(headers["access-control-expose-headers"].split(", "))


@pytest.mark.usefixtures("_allow_ours")
@pytest.mark.parametrize("origin", [THEIRS, "null", "https://app.example.edu.evil.example", "http://app.example.edu"])
def test_another_origin_is_told_nothing(alice_client, origin):
    for asked in ({"method": "OPTIONS", **PREFLIGHT}, {"method": "POST"}):
        _, headers, _ = ask_raw(**asked, Origin=origin)
        assert not [name for name in headers if name.startswith("access-control-")]
    assert not alice_client.get(ME, headers={"Origin": origin}).has_header("Access-Control-Allow-Origin")


def test_without_the_setting_no_origin_is_allowed(settings):
    assert settings.CORS_ALLOWED_ORIGINS == []
    assert "access-control-allow-origin" not in ask_raw("OPTIONS", Origin=OURS, **PREFLIGHT)[1]


@pytest.mark.usefixtures("_allow_ours")
def test_pages_of_operators_are_for_no_other_origin(anonymous):
    answer = anonymous.get("/admin/login/", headers={"Origin": OURS})
    assert not answer.has_header("Access-Control-Allow-Origin")


def test_raw_routes_carry_djangos_security_headers():
    _, headers, _ = ask_raw("POST")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_raw_routes_go_to_tls_when_all_do(settings, anonymous):
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_HSTS_SECONDS = 60
    status, headers, _ = ask_raw("POST")
    assert (status, headers["location"]) == (301, f"https://localhost{CHAT}")
    status, headers, _ = ask_raw("POST", scheme="https")
    assert (status, headers["strict-transport-security"].split(";")[0]) == (200, "max-age=60")
    assert anonymous.get(ME).status_code == 301


@pytest.mark.parametrize("path", ["/health", "/api/v1/health", "/health/ready", "/metrics"])
def test_orchestrators_and_scrapers_need_no_tls(settings, anonymous, path):
    settings.SECURE_SSL_REDIRECT = True
    assert anonymous.get(path).status_code != 301


def test_django_finds_nothing_wrong_with_the_settings_of_production(tmp_path):
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={**kept, **PRODUCTION, "SMARTFLOW_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "no issues" in done.stdout
