"""Signing in: one answer and equal work for every wrong pair, and what an access token opens."""

from datetime import timedelta

import jwt
import pytest
from django.contrib.auth.hashers import MD5PasswordHasher

from smartflow.accounts.models import TokenSession
from smartflow.accounts.queries import authenticate_token
from smartflow.kernel.clock import utc_now
from tests.factories import PASSWORD, make_user, sign_in

URL = "/api/v1/user/login"
ME = "/api/v1/user/me"


def login(client, username="alice", password=PASSWORD, **headers):
    return client.post(URL, {"username": username, "password": password}, format="json", headers=headers)


def me(client, header):
    return client.get(ME, headers={"Authorization": header})


def forged(settings, *, secret="JWT_ACCESS_SECRET", algorithm="HS256", **changes):
    now = int(utc_now().timestamp())
    claims = {
        "user_id": 1,
        "sid": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        "jti": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        "token_type": "access_token",
        "iat": now,
        "exp": now + 60,
    } | changes
    key = getattr(settings, secret) if secret else ""
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm=algorithm)


def test_open_session_hands_out_a_pair_with_one_sid_and_two_jtis(alice, anonymous, settings):
    pair = login(anonymous).json()["data"]
    access = jwt.decode(pair["access_token"], settings.JWT_ACCESS_SECRET, algorithms=["HS256"])
    refresh = jwt.decode(pair["refresh_token"], settings.JWT_REFRESH_SECRET, algorithms=["HS256"])
    assert set(access) == {"user_id", "sid", "token_type", "jti", "iat", "exp"} == set(refresh)
    assert access["user_id"] == alice.id
    assert access["sid"] == refresh["sid"]
    assert access["jti"] != refresh["jti"]
    assert (access["token_type"], refresh["token_type"]) == ("access_token", "refresh_token")
    assert (access["exp"] - access["iat"], refresh["exp"] - refresh["iat"]) == (15 * 60, 7 * 86400)


def test_open_session_remembers_where_it_comes_from(alice, anonymous):
    login(anonymous, **{"User-Agent": "Firefox " + "x" * 300})
    session = TokenSession.objects.get(user=alice)
    assert session.user_agent.startswith("Firefox x")
    assert len(session.user_agent) == 255
    assert session.ip_address == "127.0.0.1"


def test_open_session_gives_one_answer_for_unknown_name_wrong_password_and_switched_off_user(alice, anonymous):
    make_user("gone", is_active=False)
    answers = [login(anonymous, *pair) for pair in (("nobody", PASSWORD), ("alice", "wrong"), ("gone", PASSWORD))]
    bodies = [{k: v for k, v in answer.json().items() if k != "request_id"} for answer in answers]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["status"] == "40007"


def test_open_session_hashes_as_often_for_an_unknown_name_as_for_a_wrong_password(alice, anonymous, monkeypatch):
    hashed = []
    encode = MD5PasswordHasher.encode
    monkeypatch.setattr(
        MD5PasswordHasher, "encode", lambda self, password, salt: hashed.append(1) or encode(self, password, salt)
    )
    counts = []
    for pair in (("nobody", "wrong"), ("alice", "wrong")):
        hashed.clear()
        login(anonymous, *pair)
        counts.append(len(hashed))
    assert counts == [1, 1]


@pytest.mark.parametrize("field", ["username", "password"])
def test_open_session_answers_40004_when_a_field_is_blank(alice, anonymous, field):
    answer = login(anonymous, **{field: ""})
    assert (answer.status_code, answer.json()["status"]) == (400, "40004")
    assert list(answer.json()["fields"]) == [field]


def test_open_session_is_not_disturbed_by_a_stale_token(alice, anonymous):
    assert login(anonymous, Authorization="Bearer stale").status_code == 200


def test_me_shows_the_account(alice, alice_client):
    data = alice_client.get(ME).json()["data"]
    assert data == {
        "id": alice.id,
        "username": "alice",
        "token_limit": 100_000,
        "token_usage": 0,
        "time_zone": "Asia/Shanghai",
    }


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {}", "{}", "  {}  "])
def test_authenticate_token_reads_the_header_in_every_form(alice, anonymous, form):
    assert me(anonymous, form.format(sign_in(alice).access_token)).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Basic {}", "Bearer {} more", "Token {}"])
def test_authenticate_token_answers_40009_when_the_header_is_another_thing(alice, anonymous, header):
    answer = me(anonymous, header.format(sign_in(alice).access_token))
    assert (answer.status_code, answer.json()["status"]) == (401, "40009")
    assert answer["WWW-Authenticate"] == "Bearer"


def test_authenticate_token_answers_40011_when_the_token_is_garbage_or_tampered(alice, anonymous):
    token = sign_in(alice).access_token
    head, body, signature = token.split(".")
    for bad in ("garbage", "a.b.c", f"{head}.{body[:-2]}.{signature}", token[:-4] + "AAAA", "日本"):
        answer = me(anonymous, f"Bearer {bad}".encode().decode("latin-1"))
        assert (answer.status_code, answer.json()["status"]) == (401, "40011"), bad


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_authenticate_token_refuses_other_algorithms_with_the_right_secret(db, anonymous, settings, algorithm):
    assert me(anonymous, forged(settings, algorithm=algorithm)).json()["status"] == "40011"


def test_authenticate_token_refuses_an_unsigned_token(db, anonymous, settings):
    assert me(anonymous, forged(settings, secret="", algorithm="none")).json()["status"] == "40011"


def test_authenticate_token_answers_40011_when_the_token_has_expired(alice, anonymous):
    pair = sign_in(alice, now=utc_now() - timedelta(minutes=15, seconds=1))
    assert me(anonymous, f"Bearer {pair.access_token}").json()["status"] == "40011"


def test_authenticate_token_answers_40016_for_a_refresh_token(alice, anonymous):
    assert me(anonymous, f"Bearer {sign_in(alice).refresh_token}").json()["status"] == "40016"


def test_authenticate_token_answers_40016_when_the_right_secret_signed_the_wrong_type(db, anonymous, settings):
    assert me(anonymous, forged(settings, token_type="refresh_token")).json()["status"] == "40016"


@pytest.mark.parametrize(
    "changes", [{"user_id": 0}, {"user_id": "1"}, {"user_id": True}, {"sid": None}, {"sid": 7}, {"jti": "x"}]
)
def test_authenticate_token_answers_40012_when_a_claim_is_wrong(db, anonymous, settings, changes):
    assert me(anonymous, forged(settings, **changes)).json()["status"] == "40012"


def test_authenticate_token_answers_40012_when_the_session_is_another_users(alice, bob, anonymous, settings):
    sign_in(bob)
    sid = TokenSession.objects.get(user=bob).id
    assert me(anonymous, forged(settings, user_id=alice.id, sid=sid)).json()["status"] == "40012"


def test_authenticate_token_answers_40017_when_the_session_is_gone_or_the_user_switched_off(alice, anonymous):
    header = f"Bearer {sign_in(alice).access_token}"
    alice.is_active = False
    alice.save()
    assert me(anonymous, header).json()["status"] == "40017"
    TokenSession.objects.all().delete()
    assert me(anonymous, header).json()["status"] == "40017"


def test_authenticate_token_costs_one_query(alice, django_assert_num_queries):
    token = sign_in(alice).access_token
    with django_assert_num_queries(1):
        user = authenticate_token(header=token, now=utc_now())
    assert (user.user_id, user.username) == (alice.id, "alice")
