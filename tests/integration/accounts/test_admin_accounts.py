"""The operators' pages of users and sessions."""

import pytest
from django.contrib.admin.models import LogEntry

from smartflow.accounts.models import TokenSession, User
from tests.admin_rows import make_session, operator_client
from tests.factories import PASSWORD, make_user, sign_in

pytestmark = pytest.mark.django_db
USERS, SESSIONS = "/admin/accounts/user/", "/admin/accounts/tokensession/"
EDIT = ("accounts.view_user", "accounts.change_user")


@pytest.fixture
def operator():
    return operator_client(*EDIT)


def listed(response):
    return [row.pk for row in response.context["cl"].result_list]


def form_of(user, **changes):
    return {"username": user.username, "phone_number": "", "token_limit": user.token_limit, "is_active": "on"} | changes


def test_users_are_found_by_exact_name_or_id(operator, alice):
    make_user("alicea")
    assert listed(operator.get(USERS, {"q": "alice"})) == [alice.pk]
    assert listed(operator.get(USERS, {"q": str(alice.pk)})) == [alice.pk]


def test_token_limit_can_be_changed_and_token_usage_cannot(operator, alice):
    response = operator.post(f"{USERS}{alice.pk}/change/", form_of(alice, token_limit=5, token_usage=0))
    assert response.status_code == 302
    alice.refresh_from_db()
    assert alice.token_limit == 5
    assert "token_usage" not in operator.get(f"{USERS}{alice.pk}/change/").context["adminform"].form.fields


def test_saving_a_user_keeps_tokens_counted_meanwhile(operator, alice, monkeypatch):
    save = User.save

    def count_then_save(self, *args, **kwargs):
        User.objects.filter(pk=self.pk).update(token_usage=777)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(User, "save", count_then_save)
    operator.post(f"{USERS}{alice.pk}/change/", form_of(alice, token_limit=5))
    alice.refresh_from_db()
    assert (alice.token_limit, alice.token_usage) == (5, 777)


def test_operator_can_neither_become_superuser_nor_touch_one(operator):
    me, root = User.objects.get(username="operator"), User.objects.create_superuser("root", "x")
    operator.post(f"{USERS}{me.pk}/change/", form_of(me, is_staff="on", is_superuser="on"))
    me.refresh_from_db()
    assert not me.is_superuser
    assert operator.post(f"{USERS}{root.pk}/password/", {"password1": "x", "password2": "x"}).status_code == 403


def test_password_form_sets_the_password_and_ends_the_sessions(operator, alice):
    sign_in(alice)
    new = "ein-anderes-Pferd-7"
    response = operator.post(f"{USERS}{alice.pk}/password/", {"password1": new, "password2": new})
    assert response.status_code == 302
    alice.refresh_from_db()
    assert alice.check_password(new)
    assert not alice.check_password(PASSWORD)
    assert not TokenSession.objects.filter(user=alice, revoked_at__isnull=True).exists()


def test_user_can_be_added(alice):
    client = operator_client(*EDIT, "accounts.add_user", username="chief")
    fields = {"username": "eve", "phone_number": "", "token_limit": 10, "usable_password": "true"}
    assert client.post(f"{USERS}add/", fields | {"password1": PASSWORD, "password2": PASSWORD}).status_code == 302
    assert User.objects.get(username="eve").check_password(PASSWORD)


def test_users_cannot_be_deleted(alice):
    client = operator_client(*EDIT, "accounts.delete_user", username="chief")
    assert client.post(f"{USERS}{alice.pk}/delete/", {"post": "yes"}).status_code == 403


def test_user_page_shows_the_sessions_to_those_who_may_see_them(operator, alice):
    session = make_session(alice)
    chief = operator_client(*EDIT, "accounts.view_tokensession", username="chief")
    assert session.pk in chief.get(f"{USERS}{alice.pk}/change/").content.decode()
    assert session.pk not in operator.get(f"{USERS}{alice.pk}/change/").content.decode()


def test_sessions_are_found_by_user_newest_first(alice, bob):
    client = operator_client("accounts.view_tokensession")
    older, newer, other = make_session(alice), make_session(alice), make_session(bob)
    assert listed(client.get(SESSIONS, {"q": "alice"})) == [newer.pk, older.pk]
    assert listed(client.get(SESSIONS, {"q": older.pk})) == [older.pk]
    assert listed(client.get(SESSIONS)) == [other.pk, newer.pk, older.pk]


def test_end_sessions_revokes_the_ticked_ones_and_logs_it(alice):
    client = operator_client("accounts.view_tokensession", "accounts.end_tokensession")
    ticked, other = make_session(alice), make_session(alice)
    client.post(SESSIONS, {"action": "end_sessions", "_selected_action": [ticked.pk]})
    ticked.refresh_from_db()
    other.refresh_from_db()
    assert ticked.revoke_reason == "ended_by_operator"
    assert other.revoked_at is None
    assert LogEntry.objects.get().object_id == ticked.pk


def test_end_sessions_needs_its_permission(alice):
    client = operator_client("accounts.view_tokensession")
    session = make_session(alice)
    client.post(SESSIONS, {"action": "end_sessions", "_selected_action": [session.pk]})
    session.refresh_from_db()
    assert session.revoked_at is None
