"""The first operator: created once, the generated password shown once."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from smartflow.accounts.models import User
from smartflow.accounts.operations import create_admin
from tests.factories import make_user
from tests.racing import run_at_once


def run():
    out = StringIO()
    call_command("ensure_admin", stdout=out)
    return out.getvalue()


def test_ensure_admin_prints_a_generated_password_once(db, settings):
    settings.ADMIN_PASSWORD = ""
    line = run()
    password = line.removeprefix("admin password (shown once): ").strip()
    admin = User.objects.get(username="admin")
    assert len(password) >= 12
    assert admin.check_password(password)
    assert (admin.is_staff, admin.is_superuser) == (True, True)
    assert password not in admin.password
    assert run() == ""


def test_ensure_admin_takes_the_given_password_and_prints_nothing(db, settings):
    settings.ADMIN_PASSWORD = "given-by-the-operator"
    assert run() == ""
    assert User.objects.get(username="admin").check_password("given-by-the-operator")


def test_ensure_admin_never_changes_an_existing_account(db, settings):
    settings.ADMIN_PASSWORD = "first-password"
    run()
    settings.ADMIN_PASSWORD = "second-password"
    run()
    assert User.objects.get(username="admin").check_password("first-password")


def test_ensure_admin_refuses_to_raise_an_ordinary_user(db):
    make_user("admin")
    with pytest.raises(CommandError, match="createsuperuser"):
        run()
    assert not User.objects.get(username="admin").is_superuser


@pytest.mark.django_db(transaction=True)
def test_create_admin_creates_one_when_two_processes_start_at_once():
    results = run_at_once(*[lambda: create_admin(username="admin", password="p")] * 2)
    assert sorted(results) == [False, True]
