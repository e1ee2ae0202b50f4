"""Rate limits as a client meets them; in this process, and in Redis where there is one."""

import socket
import threading

import pytest
import redis
from django.conf import settings as configured
from prometheus_client import REGISTRY

from smartflow.api import throttling, token_buckets
from smartflow.api.throttling import TooManyRequests, check_rate
from smartflow.api.token_buckets import Bucket, BucketsUnavailable, LocalBuckets, RedisBuckets
from smartflow.kernel.errors import Unavailable
from tests.factories import PASSWORD
from tests.racing import run_at_once

ME = "/api/v1/user/me"
LOGIN = "/api/v1/user/login"
REDIS = pytest.param("redis", marks=pytest.mark.skipif(not configured.REDIS_URL, reason="needs REDIS_URL"))
pytestmark = pytest.mark.django_db


@pytest.fixture(params=["local", REDIS])
def kept_in(request, settings, monkeypatch):
    """Turn the limits on, in buckets of the test's own."""
    settings.RATE_LIMITS = True
    buckets = LocalBuckets()
    if request.param == "redis":
        # a busy machine must not look like a Redis that is away
        monkeypatch.setattr(token_buckets, "_CONNECT_SECONDS", 10)
        monkeypatch.setattr(token_buckets, "_ANSWER_SECONDS", 10)
        prefix = f"tests.{throttling.__name__}.{id(buckets)}"
        buckets = RedisBuckets(configured.REDIS_URL, prefix=prefix)
    monkeypatch.setattr(throttling, "_kept_in", lambda url: buckets)
    yield buckets
    if request.param == "redis":
        with redis.Redis.from_url(configured.REDIS_URL) as client:
            for key in client.scan_iter(f"{prefix}:*"):
                client.delete(key)


@pytest.fixture
def limit(settings):
    def limit(**rates):
        settings.RATE_LIMIT_GROUPS = settings.RATE_LIMIT_GROUPS | {
            name: (capacity, 3600.0) for name, capacity in rates.items()
        }

    return limit


def count(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0


def statuses(answers):
    return [(answer.status_code, answer.json()["status"]) for answer in answers]


def login(client, username="alice", password="wrong", **headers):
    return client.post(LOGIN, {"username": username, "password": password}, format="json", headers=headers)


def test_a_user_is_told_what_is_left_and_then_refused(kept_in, limit, alice_client, bob_client):
    limit(read=2)
    refused_before = count("http_rate_limited_total", group="read")
    answers = [alice_client.get(ME) for _ in range(3)]

    assert statuses(answers) == [(200, "10000"), (200, "10000"), (429, "40033")]
    assert [answer["RateLimit-Limit"] for answer in answers] == ["2", "2", "2"]
    assert [answer["RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert 1790 <= int(answers[0]["RateLimit-Reset"]) <= 1800
    assert 1790 <= int(answers[2]["Retry-After"]) <= 1800
    assert count("http_rate_limited_total", group="read") == refused_before + 1
    assert bob_client.get(ME).status_code == 200


def test_reads_and_writes_have_a_bucket_each(kept_in, limit, alice_client):
    limit(read=1, write=1)
    change = {"time_zone": "Europe/Berlin"}
    asked = [alice_client.get(ME), alice_client.patch(ME, change, format="json")]
    asked += [alice_client.get(ME), alice_client.patch(ME, change, format="json")]
    assert [answer.status_code for answer in asked] == [200, 200, 429, 429]


def test_the_users_of_one_address_share_a_bucket(kept_in, limit, alice_client, bob_client):
    limit(address=3)
    answers = [client.get(ME) for client in (alice_client, bob_client, alice_client, bob_client)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert alice_client.get(ME, REMOTE_ADDR="192.0.2.7").status_code == 200


def test_signing_in_is_limited_by_address(kept_in, limit, anonymous, alice):
    limit(auth=2, auth_name=100)
    answers = [login(anonymous, f"nobody-{number}") for number in range(3)]
    assert statuses(answers) == [(401, "40007"), (401, "40007"), (429, "40033")]
    assert login(anonymous, password=PASSWORD).status_code == 429
    assert anonymous.post(LOGIN, {}, format="json", REMOTE_ADDR="192.0.2.7").status_code == 400


def test_signing_in_is_limited_by_name_from_anywhere(kept_in, limit, anonymous, alice):
    limit(auth=100, auth_name=2)
    names = ["alice", " \uff41lice ", "alice"]  # the second is written in full width
    answers = [
        anonymous.post(LOGIN, {"username": name, "password": "x"}, format="json", REMOTE_ADDR=f"192.0.2.{number}")
        for number, name in enumerate(names)
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert login(anonymous, "bob").status_code == 401
    lone = anonymous.generic("POST", LOGIN, b'{"username":"\\ud800","password":"x"}', "application/json")
    assert lone.status_code == 400


def test_registering_is_limited_by_address(kept_in, limit, anonymous):
    limit(auth=1)
    body = {"username": "carol", "password": PASSWORD}
    answers = [anonymous.post("/api/v1/user/register", body, format="json") for _ in range(2)]
    assert statuses(answers) == [(201, "10000"), (429, "40033")]


def test_the_admin_is_no_way_around_the_limits_of_signing_in(kept_in, limit, anonymous, alice):
    limit(auth=100, auth_name=2)
    page = "/admin/login/"
    sent = {"username": "alice", "password": "wrong"}
    answers = [anonymous.post(page, sent), login(anonymous), anonymous.post(page, sent)]
    assert [answer.status_code for answer in answers] == [200, 401, 429]
    assert 1790 <= int(answers[2]["Retry-After"]) <= 1800
    assert answers[2].content.decode().startswith("Too many requests")
    assert anonymous.get(page).status_code == 200


def test_what_a_client_claims_about_its_address_does_not_count(kept_in, limit, anonymous):
    limit(auth=1, auth_name=100)
    answers = [login(anonymous, **{"X-Forwarded-For": f"203.0.113.{number}"}) for number in range(2)]
    assert [answer.status_code for answer in answers] == [401, 429]


def test_a_refusal_costs_no_password_check(kept_in, limit, anonymous, monkeypatch):
    limit(auth=1)
    login(anonymous)
    monkeypatch.setattr("smartflow.accounts.operations.open_session", lambda **values: pytest.fail("was called"))
    assert login(anonymous).status_code == 429


@pytest.mark.parametrize("path", ["/health", "/api/v1/health", "/health/ready"])
def test_health_is_not_limited(kept_in, limit, anonymous, path):
    limit(read=1, address=1)
    assert not any(anonymous.get(path).has_header("RateLimit-Limit") for _ in range(3))


def test_without_the_setting_nothing_is_limited(kept_in, limit, settings, alice_client):
    settings.RATE_LIMITS = False
    limit(read=1)
    answers = [alice_client.get(ME) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert not answers[0].has_header("RateLimit-Limit")


def test_a_refused_request_is_named_in_the_document(anonymous):
    schema = anonymous.get("/api/schema/?format=json").json()
    assert "429" in schema["paths"]["/api/v1/user/login"]["post"]["responses"]
    assert "429" not in schema["paths"]["/api/v1/health"]["get"]["responses"]


def test_check_rate_lets_no_more_through_at_once_than_there_are(kept_in, limit):
    limit(agent=20)
    # Many more connections at once than this would run into the limiter's own short timeouts on a busy machine.
    results = run_at_once(*[lambda: check_rate(group="agent", user_id=1, address="192.0.2.1")] * 48)
    assert sum(isinstance(result, TooManyRequests) for result in results) == 28
    assert sorted(result.remaining for result in results if not isinstance(result, Exception)) == list(range(20))


# --- Redis away -------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_redis():
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_redis_that_hangs_costs_one_request_a_moment_and_the_others_nothing(silent_redis):
    buckets = RedisBuckets(silent_redis, prefix="tests")
    calls = []
    real, buckets._script = buckets._script, lambda *args: calls.append(threading.get_ident()) or real(*args)
    for _ in range(50):
        with pytest.raises(BucketsUnavailable):
            buckets.take([Bucket("a", 1, 1)])
    assert len(calls) == 1


@pytest.mark.parametrize("policy", ["allow", "refuse"])
def test_without_an_answer_of_redis_the_setting_decides(settings, alice_client, monkeypatch, policy):
    settings.RATE_LIMITS, settings.RATE_LIMIT_WITHOUT_REDIS = True, policy
    buckets = RedisBuckets("redis://127.0.0.1:1/0", prefix="tests")
    monkeypatch.setattr(throttling, "_kept_in", lambda url: buckets)
    before = count("http_rate_unchecked_total", outcome=policy)

    answer = alice_client.get(ME)

    assert answer.status_code == (200 if policy == "allow" else 503)
    assert count("http_rate_unchecked_total", outcome=policy) == before + 1
    if policy == "refuse":
        assert (answer.json()["status"], int(answer["Retry-After"]) > 0) == ("50300", True)
        with pytest.raises(Unavailable):
            check_rate(group="agent", user_id=1)


def test_the_place_of_the_buckets_follows_the_settings():
    assert isinstance(throttling._kept_in(""), LocalBuckets)
    assert isinstance(throttling._kept_in("redis://127.0.0.1:1/0"), RedisBuckets)
