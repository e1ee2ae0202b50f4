"""The life of a session: rotation, reuse as theft, logout, and what another user may not do to it."""

import logging
from datetime import timedelta

import pytest

from smartflow.accounts.contracts import TokenPair
from smartflow.accounts.models import TokenSession
from smartflow.accounts.operations import RefreshTokenRefused, rotate_session
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from tests.factories import make_user, sign_in
from tests.racing import run_at_once

BASE = "/api/v1/user"


def refresh(client, token):
    return client.post(f"{BASE}/refresh-token", {"refresh_token": token}, format="json")


def status_of_me(client, token):
    return client.get(f"{BASE}/me", headers={"Authorization": f"Bearer {token}"}).json()["status"]


def test_rotate_session_keeps_the_session_and_both_access_tokens(alice, anonymous):
    first = sign_in(alice)
    second = refresh(anonymous, first.refresh_token).json()["data"]
    third = refresh(anonymous, second["refresh_token"])
    assert third.status_code == 200
    assert TokenSession.objects.count() == 1
    for token in (first.access_token, second["access_token"], third.json()["data"]["access_token"]):
        assert status_of_me(anonymous, token) == "10000"


def test_rotate_session_prolongs_the_session(alice, anonymous):
    pair = sign_in(alice, now=utc_now() - timedelta(days=6))
    refresh(anonymous, pair.refresh_token)
    session = TokenSession.objects.get()
    assert session.expires_at > utc_now() + timedelta(days=6)
    assert session.refreshed_at > session.created_at


def test_rotate_session_revokes_the_session_when_a_token_is_used_twice(alice, anonymous, caplog):
    first = sign_in(alice)
    second = refresh(anonymous, first.refresh_token).json()["data"]
    with caplog.at_level(logging.WARNING, "smartflow.security"):
        answer = refresh(anonymous, first.refresh_token)
    session = TokenSession.objects.get()
    events = [record for record in caplog.records if record.name == "smartflow.security"]
    assert (answer.status_code, answer.json()["status"]) == (401, "40015")
    assert (session.revoke_reason, session.revoked_at is not None) == ("refresh_reuse", True)
    assert [(e.event, e.sid, e.user_id) for e in events] == [("refresh_reuse", session.id, alice.id)]
    assert status_of_me(anonymous, second["access_token"]) == "40017"
    assert refresh(anonymous, second["refresh_token"]).json()["status"] == "40017"


def test_rotate_session_leaves_the_users_other_sessions_alone_when_one_is_stolen(alice, anonymous):
    stolen, other = sign_in(alice), sign_in(alice)
    refresh(anonymous, stolen.refresh_token)
    refresh(anonymous, stolen.refresh_token)
    assert status_of_me(anonymous, other.access_token) == "10000"


@pytest.mark.django_db(transaction=True)
def test_rotate_session_lets_at_most_one_of_two_racing_requests_win_and_revokes():
    alice = make_user("alice")
    token = sign_in(alice).refresh_token
    results = run_at_once(*[lambda: rotate_session(refresh_token=token, now=utc_now())] * 2)
    assert {type(result) for result in results} == {TokenPair, RefreshTokenRefused}
    session = TokenSession.objects.get()
    assert (session.revoke_reason, session.revoked_at is not None) == ("refresh_reuse", True)


def test_rotate_session_answers_40015_when_the_token_is_garbage_or_expired(alice, anonymous):
    old = sign_in(alice, now=utc_now() - timedelta(days=7, seconds=1))
    for token in ("garbage", "a.b.c", old.refresh_token):
        answer = refresh(anonymous, token)
        assert (answer.status_code, answer.json()["status"]) == (401, "40015")


def test_rotate_session_answers_40016_for_an_access_token(alice, anonymous):
    assert refresh(anonymous, sign_in(alice).access_token).json()["status"] == "40016"


def test_rotate_session_answers_40004_when_the_token_is_blank(db, anonymous):
    answer = refresh(anonymous, " ")
    assert (answer.status_code, answer.json()["status"]) == (400, "40004")


def test_rotate_session_refuses_a_switched_off_user_without_calling_it_theft(alice, anonymous):
    pair = sign_in(alice)
    alice.is_active = False
    alice.save()
    assert refresh(anonymous, pair.refresh_token).json()["status"] == "40017"
    assert TokenSession.objects.get().revoked_at is None


def test_logout_ends_the_session_and_carries_no_data(alice, anonymous):
    pair = sign_in(alice)
    answer = anonymous.post(f"{BASE}/logout", headers={"Authorization": f"Bearer {pair.access_token}"})
    assert (answer.status_code, answer.json()) == (200, {"status": "10000", "info": "success"})
    assert status_of_me(anonymous, pair.access_token) == "40017"
    assert refresh(anonymous, pair.refresh_token).json()["status"] == "40017"


def test_logout_answers_40009_without_a_token(db, anonymous):
    assert anonymous.post(f"{BASE}/logout").json()["status"] == "40009"


def test_list_sessions_shows_own_live_ones_newest_first(alice, bob, client_of, anonymous):
    sign_in(alice, now=utc_now() - timedelta(days=8))
    older = sign_in(alice, now=utc_now() - timedelta(minutes=1), user_agent="phone")
    sign_in(bob)
    rows = client_of(alice).get(f"{BASE}/sessions").json()["data"]
    assert [(row["user_agent"], row["is_current"]) for row in rows] == [("tests", True), ("phone", False)]
    assert set(rows[0]) == {"id", "created_at", "refreshed_at", "user_agent", "ip_address", "is_current"}
    assert rows[0]["ip_address"] == "192.0.2.1"
    assert status_of_me(anonymous, older.access_token) == "10000"


def test_end_session_ends_one_of_ones_own(alice, alice_client, anonymous):
    other = sign_in(alice)
    sid = next(row["id"] for row in alice_client.get(f"{BASE}/sessions").json()["data"] if not row["is_current"])
    assert alice_client.delete(f"{BASE}/sessions/{sid}").status_code == 200
    assert alice_client.delete(f"{BASE}/sessions/{sid}").status_code == 200
    assert status_of_me(anonymous, other.access_token) == "40017"
    assert alice_client.get(f"{BASE}/me").status_code == 200


def test_end_session_is_404_for_bob_and_for_nobodys(alice_client, bob_client):
    sid = alice_client.get(f"{BASE}/sessions").json()["data"][0]["id"]
    answers = [bob_client.delete(f"{BASE}/sessions/{one}") for one in (sid, new_uuid())]
    bodies = [{k: v for k, v in answer.json().items() if k != "request_id"} for answer in answers]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert bodies[0] == bodies[1]
    assert alice_client.get(f"{BASE}/me").status_code == 200


def test_bob_sees_none_of_alices_sessions(alice_client, bob_client):
    alices = {row["id"] for row in alice_client.get(f"{BASE}/sessions").json()["data"]}
    bobs = {row["id"] for row in bob_client.get(f"{BASE}/sessions").json()["data"]}
    assert len(alices) == len(bobs) == 1
    assert not alices & bobs


@pytest.mark.parametrize(("body", "ended", "mine"), [({}, 3, 401), ({"keep_current": True}, 2, 200)])
def test_end_all_sessions_spares_the_present_one_only_on_request(alice, alice_client, bob_client, body, ended, mine):
    sign_in(alice)
    sign_in(alice)
    answer = alice_client.post(f"{BASE}/sessions/end-all", body, format="json")
    assert answer.json()["data"] == {"ended_count": ended}
    assert alice_client.get(f"{BASE}/me").status_code == mine
    assert bob_client.get(f"{BASE}/me").status_code == 200
