"""A person who asks in Chinese is answered in Chinese, everybody else in English."""

import re

import pytest
from django.utils import translation

from smartflow.api.codes import CODES

LOGIN, ME, REGISTER = "/api/v1/user/login", "/api/v1/user/me", "/api/v1/user/register"
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def ask(client, accept_language, name="nobody", password="wrong password"):
    body = {"username": name, "password": password}
    return client.post(LOGIN, body, format="json", headers={"Accept-Language": accept_language})


@pytest.mark.django_db
@pytest.mark.parametrize("language", ["zh-Hans", "zh-CN", "zh-CN,zh;q=0.9,en;q=0.8", "zh", "fr;q=0.5,zh-hans"])
def test_errors_are_chinese_when_chinese_is_asked_for(anonymous, language):
    answer = ask(anonymous, language)
    assert (answer.status_code, answer.json()["info"]) == (401, "用户名或密码错误。")
    assert answer["Content-Language"] == "zh-hans"


@pytest.mark.django_db
@pytest.mark.parametrize("language", ["", "en", "en-GB,en;q=0.9,zh;q=0.1", "fr", "*"])
def test_errors_are_english_otherwise(anonymous, language):
    assert ask(anonymous, language).json()["info"] == "The username or the password is wrong."


@pytest.mark.django_db
def test_language_of_one_request_does_not_reach_the_next(anonymous):
    assert CHINESE.search(ask(anonymous, "zh-Hans").json()["info"])
    assert not CHINESE.search(ask(anonymous, "").json()["info"])


def test_the_word_of_a_success_is_part_of_the_interface_and_stays(alice_client):
    assert alice_client.get(ME, headers={"Accept-Language": "zh-Hans"}).json()["info"] == "success"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "新同学", "password": "123"}, "password"),
        ({"username": "新同学", "password": "password"}, "password"),
        ({"username": "", "password": "Wf7-kkq-z1"}, "username"),
        ({"password": "Wf7-kkq-z1"}, "username"),
        ({"username": "x" * 2000, "password": "Wf7-kkq-z1"}, "username"),
        ({"username": ["a"], "password": "Wf7-kkq-z1"}, "username"),
        ({"username": "新同学", "password": "Wf7-kkq-z1", "nick": "x"}, "nick"),
    ],
)
def test_a_field_is_explained_in_chinese_only(anonymous, body, field):
    answer = anonymous.post(REGISTER, body, format="json", headers={"Accept-Language": "zh-Hans"})
    assert answer.status_code == 400
    hint = answer.json()["fields"][field]
    assert CHINESE.search(hint)
    # Names of fields stay as they are; an English sentence has a blank between two words.
    assert not re.search(r"[a-z]+ [a-z]+ [a-z]+", hint)


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_a_chinese_meaning(code):
    with translation.override("zh-hans"):
        assert CHINESE.search(translation.gettext(CODES[code].meaning))


def test_the_admin_speaks_chinese(client, admin_user):
    client.force_login(admin_user)
    page = client.get("/admin/", headers={"Accept-Language": "zh-Hans"}).content.decode()
    assert "发件箱" in page
    assert "死信" in page
