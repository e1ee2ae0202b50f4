"""The operators' pages of users and sessions."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry

from smartflow.accounts import operations
from smartflow.accounts.models import TokenSession, User
from smartflow.kernel.clock import utc_now
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


def test_users_are_found_by_how_their_name_begins_or_by_id(operator, alice):
    longer, _other = make_user("alicea"), make_user("alic")
    assert listed(operator.get(USERS, {"q": "alice"})) == [longer.pk, alice.pk]
    assert listed(operator.get(USERS, {"q": str(alice.pk)})) == [alice.pk]
    assert listed(operator.get(USERS, {"q": "ALICE"})) == []
    assert listed(operator.get(USERS, {"q": "%"})) == []


def test_users_are_filtered_by_state(operator, alice, bob):
    operations.lock_user(user_id=bob.pk, now=utc_now())
    assert listed(operator.get(USERS, {"state": "locked"})) == [bob.pk]
    assert listed(operator.get(USERS, {"state": "staff"})) == [User.objects.get(username="operator").pk]
    assert listed(operator.get(USERS, {"state": "locked", "q": "alice"})) == []


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


def test_sessions_are_filtered_by_whether_they_are_over(alice, bob):
    client = operator_client("accounts.view_tokensession")
    live, ended, his = make_session(alice), make_session(alice, revoked_at=utc_now()), make_session(bob)
    over = make_session(alice)
    TokenSession.objects.filter(pk=over.pk).update(expires_at=utc_now() - timedelta(days=1))
    assert listed(client.get(SESSIONS, {"state": "live"})) == [his.pk, live.pk]
    assert listed(client.get(SESSIONS, {"state": "live", "q": "alice"})) == [live.pk]
    assert listed(client.get(SESSIONS, {"state": "expired"})) == [over.pk]
    assert ended.pk in listed(client.get(SESSIONS))


# --- locking ----------------------------------------------------------------------------------------------------------


def act(client, action, *users):
    return client.post(USERS, {"action": action, "_selected_action": [user.pk for user in users]}, follow=True)


def logged():
    return list(LogEntry.objects.order_by("pk").values_list("object_repr", "change_message"))


def test_lock_users_ends_their_sessions_and_keeps_them_out_and_is_logged(operator, client_of, alice, bob):
    client = client_of(alice)

    page = act(operator, "lock_users", alice)

    assert "1 user was locked out" in page.content.decode()
    assert client.get("/api/v1/user/me").json()["status"] == "40017"
    refused = client_of().post("/api/v1/user/login", {"username": "alice", "password": PASSWORD}, format="json")
    assert refused.json()["status"] == "40007"
    assert logged() == [("alice", "locked by an operator")]
    bob.refresh_from_db()
    assert bob.is_active


def test_unlock_users_lets_them_in_and_leaves_their_old_sessions_ended(operator, client_of, alice, bob):
    old, his = client_of(alice), client_of(bob)
    act(operator, "lock_users", alice)

    act(operator, "unlock_users", alice, bob)

    assert old.get("/api/v1/user/me").json()["status"] == "40017"
    assert client_of(alice).get("/api/v1/user/me").status_code == 200
    assert his.get("/api/v1/user/me").status_code == 200, "bob was not locked"
    assert [done for _name, done in logged()] == ["locked by an operator", "unlocked by an operator"]


def test_end_sessions_of_users_ends_all_of_theirs_and_is_logged(alice, bob):
    chief = operator_client("accounts.view_user", "accounts.end_tokensession", username="chief")
    make_session(alice), make_session(alice), make_session(bob)

    page = act(chief, "end_sessions", alice)

    assert "2 sessions were ended" in page.content.decode()
    live = TokenSession.objects.filter(revoked_at__isnull=True)
    assert [session.user_id for session in live] == [bob.pk]
    assert set(TokenSession.objects.values_list("revoke_reason", flat=True)) == {"ended_by_operator", ""}
    assert logged() == [("alice", "2 sessions ended by an operator")]


@pytest.mark.parametrize("action", ["lock_users", "unlock_users", "end_sessions"])
def test_actions_on_users_need_their_permission(alice, action):
    client = operator_client("accounts.view_user")
    session = make_session(alice)
    User.objects.filter(pk=alice.pk).update(is_active=action != "unlock_users")

    act(client, action, alice)

    session.refresh_from_db()
    alice.refresh_from_db()
    assert (session.revoked_at, alice.is_active) == (None, action != "unlock_users")
    assert not LogEntry.objects.exists()


def test_operator_locks_neither_a_superuser_nor_themselves(operator):
    me, root = User.objects.get(username="operator"), User.objects.create_superuser("root", "x")

    page = act(operator, "lock_users", me, root)

    assert "0 users were locked out" in page.content.decode()
    assert set(User.objects.values_list("is_active", flat=True)) == {True}
    operator.post(f"{USERS}{me.pk}/change/", {key: value for key, value in form_of(me).items() if key != "is_active"})
    me.refresh_from_db()
    assert me.is_active


def test_switching_a_user_off_on_their_page_is_a_locking(operator, client_of, alice):
    client = client_of(alice)
    form = {key: value for key, value in form_of(alice, token_limit=7).items() if key != "is_active"}

    assert operator.post(f"{USERS}{alice.pk}/change/", form).status_code == 302

    alice.refresh_from_db()
    assert (alice.is_active, alice.token_limit) == (False, 7)
    assert client.get("/api/v1/user/me").json()["status"] == "40017"
    operator.post(f"{USERS}{alice.pk}/change/", form_of(alice))
    assert client.get("/api/v1/user/me").json()["status"] == "40017"
    assert set(TokenSession.objects.values_list("revoke_reason", flat=True)) == {"user_locked"}


@pytest.mark.parametrize("change", [operations.lock_user, operations.unlock_user])
def test_lock_and_unlock_of_who_does_not_exist_are_refused(change, db):
    with pytest.raises(operations.UserNotFound):
        change(user_id=4_711, now=utc_now())
