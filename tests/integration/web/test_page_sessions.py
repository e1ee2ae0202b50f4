"""Signing in to the page: its cookie, its session, and what keeps others out."""

from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.http import HttpResponse

from smartflow.accounts.models import TokenSession
from smartflow.accounts.operations import end_all_sessions
from smartflow.accounts.queries import authenticate_token
from smartflow.kernel.clock import utc_now
from smartflow.web.app.session import COOKIE, give_cookie
from tests.factories import PASSWORD
from tests.integration.web.pages import Browser, inline_code

pytestmark = pytest.mark.django_db


def test_sign_in_opens_a_session_that_its_owner_sees_in_the_list(alice, client_of):
    browser = Browser()
    answer = browser.sign_in("alice")
    assert (answer.status_code, answer["Location"]) == (302, "/app/")
    session = TokenSession.objects.get(user=alice)
    listed = client_of(alice).get("/api/v1/user/sessions").json()["data"]
    assert session.id in {row["id"] for row in listed}
    assert browser.get("/app/").status_code == 200


def test_sign_in_gives_a_cookie_that_scripts_and_other_sites_cannot_use(alice, settings):
    settings.SESSION_COOKIE_SECURE = True
    cookie = Browser().sign_in("alice").cookies[COOKIE]
    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"] == "Lax"
    assert cookie["max-age"] == int(django_settings.REFRESH_TOKEN_LIFETIME.total_seconds())
    assert TokenSession.objects.get(user=alice).id != cookie.value


def test_sign_in_refuses_a_wrong_password_and_keeps_the_name(alice):
    answer = Browser().sign_in("alice", "something else")
    assert answer.status_code == 401
    assert COOKIE not in answer.cookies
    assert b'value="alice"' in answer.content
    assert "The username or the password is wrong." in answer.content.decode()


def test_sign_in_goes_on_where_one_was_and_nowhere_else(alice):
    assert Browser().sign_in("alice", next="/app/?shown_2=100")["Location"] == "/app/?shown_2=100"
    for elsewhere in ("https://evil.example/app/", "//evil.example", "/admin/"):
        assert Browser().sign_in("alice", next=elsewhere)["Location"] == "/app/"


def test_sign_in_is_limited_as_the_api_is(alice, settings, client_of):
    settings.RATE_LIMITS = True
    settings.RATE_LIMIT_GROUPS = {**settings.RATE_LIMIT_GROUPS, "auth": (100, 60), "auth_name": (2, 60)}
    wrong = {"username": "alice", "password": "wrong"}
    assert client_of().post("/api/v1/user/login", wrong, format="json").status_code == 401
    assert Browser().sign_in("alice", "wrong").status_code == 401
    refused = Browser().sign_in("alice")
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0


def test_sign_up_creates_the_account_and_signs_in(db):
    browser = Browser()
    answer = browser.post("/app/sign-up", {"username": "carol", "password": PASSWORD}, by_script=False)
    assert (answer.status_code, answer["Location"]) == (302, "/app/")
    assert "carol" in browser.get("/app/").content.decode()


def test_sign_up_says_beside_the_field_what_is_wrong(alice):
    browser = Browser()
    taken = browser.post("/app/sign-up", {"username": "alice", "password": PASSWORD}, by_script=False)
    short = browser.post("/app/sign-up", {"username": "carol", "password": "x1y2"}, by_script=False)
    assert taken.status_code == 409
    assert 'id="username-error">Choose another name.' in taken.content.decode()
    assert short.status_code == 400
    assert "at least 8 characters" in short.content.decode()


@pytest.mark.parametrize("path", ["/app/sign-in", "/app/sign-up", "/app/sign-out", "/app/token", "/app/tasks/add"])
def test_every_form_needs_the_token_of_its_page(alice, path):
    browser = Browser(alice)
    answer = browser.http.post(path, {"username": "alice", "password": PASSWORD, "title": "x", "quadrant": "2"})
    assert answer.status_code == 403


def test_page_leads_who_is_not_signed_in_to_the_door(db):
    browser = Browser()
    page, part = browser.get("/app/"), browser.get("/app/quadrants", headers={"HX-Request": "true"})
    assert (page.status_code, page["Location"]) == (302, "/app/sign-in?next=%2Fapp%2F")
    assert (part.status_code, "HX-Redirect" in part) == (401, False)
    assert browser.post("/app/token", by_script=False, Accept="application/json").status_code == 401


@pytest.mark.parametrize("value", ["", "x", "x:y:z", "a" * 5000])
def test_page_takes_no_cookie_that_it_did_not_sign(alice, value):
    browser = Browser(alice)
    browser.http.cookies[COOKIE] = value
    assert browser.get("/app/").status_code == 302


def test_page_does_not_take_a_bare_session_id(alice):
    browser = Browser(alice)
    browser.http.cookies[COOKIE] = TokenSession.objects.get(user=alice).id
    assert browser.get("/app/").status_code == 302


def test_session_dies_everywhere_when_its_owner_ends_all(alice):
    browser = Browser(alice)
    token = browser.post("/app/token").json()["access_token"]
    by = authenticate_token(header=token, now=utc_now())
    end_all_sessions(by=by, keep_current=False, now=utc_now())
    assert browser.get("/app/").status_code == 302


def test_sign_out_ends_the_session_and_the_tokens_lent_by_it(alice, client_of):
    browser = Browser(alice)
    token = browser.post("/app/token").json()["access_token"]
    api = client_of()
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    assert api.get("/api/v1/user/me").json()["data"]["username"] == "alice"
    answer = browser.post("/app/sign-out", by_script=False)
    assert (answer.status_code, answer["Location"]) == (302, "/app/sign-in")
    assert browser.http.cookies[COOKIE].value == ""
    assert api.get("/api/v1/user/me").status_code == 401


def test_session_in_use_is_prolonged_and_an_idle_one_ends(alice):
    browser = Browser(alice)
    session = TokenSession.objects.filter(user=alice)
    assert COOKIE not in browser.get("/app/").cookies
    earlier, soon = utc_now() - timedelta(hours=2), utc_now() + timedelta(minutes=5)
    old = HttpResponse()
    give_cookie(old, session_id=session.get().id, now=earlier)
    browser.http.cookies[COOKIE] = old.cookies[COOKIE].value
    session.update(expires_at=soon)
    assert COOKIE in browser.get("/app/").cookies
    assert session.get().expires_at > soon + timedelta(days=6)
    assert COOKIE not in browser.get("/app/").cookies
    session.update(expires_at=utc_now() - timedelta(seconds=1))
    assert browser.get("/app/").status_code == 302


def test_pages_hold_the_browser_to_a_strict_policy_and_keep_it(alice):
    for browser, path in ((Browser(), "/app/sign-in"), (Browser(), "/app/sign-up"), (Browser(alice), "/app/")):
        answer = browser.get(path)
        policy = answer["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert inline_code(answer.content.decode()) == []
        assert "no-store" in answer["Cache-Control"]


def test_page_speaks_the_language_that_was_chosen(alice):
    browser = Browser(alice)
    assert b'<html lang="en"' in browser.get("/app/").content
    answer = browser.post("/app/language", {"language": "zh-hans", "next": "/app/"}, by_script=False)
    assert answer.status_code in {204, 302}
    assert b'<html lang="zh-hans"' in browser.get("/app/").content
