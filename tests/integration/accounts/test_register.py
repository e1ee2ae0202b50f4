"""Registering: what is refused, with which code, naming which field."""

import pytest

from smartflow.accounts.models import User
from smartflow.accounts.operations import UsernameTaken, register_user
from tests.factories import PASSWORD
from tests.racing import run_at_once

URL = "/api/v1/user/register"


def register(client, **changes):
    body = {"username": "carol", "password": PASSWORD, "phone_number": "13800000000"} | changes
    return client.post(URL, {key: value for key, value in body.items() if value is not None}, format="json")


def test_register_user_stores_a_hash_and_answers_the_id(db, anonymous):
    answer = register(anonymous)
    user = User.objects.get(username="carol")
    assert answer.status_code == 201
    assert answer.json() == {"status": "10000", "info": "success", "data": {"id": user.id}}
    assert PASSWORD not in user.password
    assert user.check_password(PASSWORD)
    assert (user.is_staff, user.is_superuser) == (False, False)


def test_register_user_accepts_chinese_names_within_45_bytes(db, anonymous):
    assert register(anonymous, username="学" * 15).status_code == 201


def test_register_user_answers_40003_when_the_name_is_taken(alice, anonymous):
    answer = register(anonymous, username="alice")
    assert (answer.status_code, answer.json()["status"]) == (409, "40003")
    assert "username" in answer.json()["fields"]


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("value", [None, "", "   "])
def test_register_user_answers_40004_when_a_field_is_blank(db, anonymous, field, value):
    answer = register(anonymous, **{field: value})
    assert (answer.status_code, answer.json()["status"]) == (400, "40004")
    assert list(answer.json()["fields"]) == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [("username", "学" * 16), ("username", "a" * 46), ("password", "p9-" * 77), ("phone_number", "1" * 19)],
)
def test_register_user_answers_40006_when_a_field_has_too_many_bytes(db, anonymous, field, value):
    answer = register(anonymous, **{field: value})
    assert (answer.status_code, answer.json()["status"]) == (400, "40006")
    assert list(answer.json()["fields"]) == [field]
    assert User.objects.count() == 0


def test_register_user_answers_40005_with_the_validators_messages_when_the_password_is_weak(db, anonymous):
    answer = register(anonymous, password="12345")
    assert (answer.status_code, answer.json()["status"]) == (400, "40005")
    assert "too short" in answer.json()["fields"]["password"]
    assert "entirely numeric" in answer.json()["fields"]["password"]


def test_register_user_refuses_a_password_like_the_name(db, anonymous):
    answer = register(anonymous, username="margarethe", password="margarethe1")
    assert "too similar" in answer.json()["fields"]["password"]


@pytest.mark.parametrize("username", ["a\u202eb", "a\tb", "a\u0000b"])
def test_register_user_refuses_invisible_characters_in_the_name(db, anonymous, username):
    answer = register(anonymous, username=username)
    assert (answer.status_code, answer.json()["status"]) == (400, "40005")


def test_register_user_refuses_unknown_fields_with_a_hint(db, anonymous):
    answer = register(anonymous, pasword="x")
    assert answer.json()["status"] == "40005"
    assert "Did you mean password?" in answer.json()["fields"]["pasword"]


@pytest.mark.django_db(transaction=True)
def test_register_user_lets_one_of_two_racing_requests_win():
    results = run_at_once(*[lambda: register_user(username="dora", password=PASSWORD)] * 2)
    assert sorted(type(result).__name__ for result in results) == [UsernameTaken.__name__, "int"]
    assert User.objects.filter(username="dora").count() == 1
