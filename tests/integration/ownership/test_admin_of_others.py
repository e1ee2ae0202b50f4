"""Every page of the admin: none for a student, and nothing of a model for staff without its permissions."""

import re

import pytest
from django.apps import apps
from django.test import Client

from outbox.models import OutboxMessage
from smartflow.accounts.models import User
from tests.integration.ownership.belongings import give_belongings, rows_of, secret_of
from tests.integration.ownership.routes import ADMIN, django_patterns

pytestmark = pytest.mark.django_db
# Signing out ends who asks, and nothing else.
ROUTES = sorted({route for route, _view in django_patterns() if route.startswith(ADMIN)} - {f"{ADMIN}logout/"})
SIGN_IN = f"{ADMIN}login/"
# Of all staff, whatever they may see: who they are, how they sign in, and which apps they have, which may be none.
PAGES_OF_ALL_STAFF = {ADMIN, f"{ADMIN}password_change/", f"{ADMIN}password_change/done/", f"{ADMIN}jsi18n/"}
PAGES_OF_ALL_STAFF |= {f"{ADMIN}search/", f"{ADMIN}login/"}
# Answers to everybody else with nothing: a redirect would put the form to sign in into the middle of a page.
PARTS = {f"{ADMIN}overview/"}


def address_of(route, owned):
    """Return the route with the ids of Bob's rows in it; patterns that are not paths by their first alternative."""
    route = re.sub(r"\^\(\?P<app_label>(\w+)[^)]*\)/\$", r"\1/", route).replace("(?P<url>.*)$", "no/such/page")
    model = re.match(rf"{ADMIN}(\w+)/(\w+)/", route)
    row = None
    if model and (model[1], model[2]) in MODELS:
        row = MODELS[model[1], model[2]]._base_manager.order_by("pk").last()
    fallback = {"user_id": owned["user_id"], "chat_id": owned["conversation_id"], "key": f"user:{owned['user_id']}"}
    return re.sub(r"\{(\w+)\}", lambda found: str(fallback.get(found[1]) or getattr(row, "pk", 1)), route)


MODELS = {(model._meta.app_label, model._meta.model_name): model for model in apps.get_models()}


def client_of_staff():
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_user("clerk", "x", is_staff=True))
    return client


@pytest.fixture
def owned(bob):
    return {**give_belongings(bob), "user_id": bob.pk}


def test_the_walk_finds_the_admin():
    assert len(ROUTES) > 100
    assert {f"{ADMIN}tasks/task/", f"{ADMIN}overview/", f"{ADMIN}accounts/user/{{user_id}}/grant-tokens/"} <= {*ROUTES}


@pytest.mark.parametrize("who", ["student", "nobody"])
def test_no_page_of_the_admin_is_a_students(who, owned, alice, bob):
    client = Client(raise_request_exception=False)
    if who == "student":
        client.force_login(alice)
    before, told = rows_of(bob), OutboxMessage.objects.count()
    for route in ROUTES:
        url = address_of(route, owned)
        for method in (client.get, client.post):
            answer = method(url)
            # An old address of a row leads to its page, whether there is such a row or not.
            is_sent_away = answer.status_code == 302 and answer["Location"].startswith((SIGN_IN, f"{url}change/"))
            is_nothing = answer.status_code == 204 and url in PARTS and not answer.content
            assert is_sent_away or is_nothing or answer.status_code in (403, 405) or url == SIGN_IN, (url, answer)
            assert secret_of(bob) not in answer.content.decode(), url
    assert (rows_of(bob), OutboxMessage.objects.count()) == (before, told)


def test_staff_without_permissions_see_nothing_of_any_model(owned, bob):
    client = client_of_staff()
    before, told = rows_of(bob), OutboxMessage.objects.count()
    for route in ROUTES:
        url = address_of(route, owned)
        for method in (client.get, client.post):
            answer = method(url)
            assert answer.status_code in (200, 302, 403, 404, 405), (url, answer.status_code)
            assert answer.status_code != 200 or url in PAGES_OF_ALL_STAFF | PARTS, url
            text = answer.content.decode()
            assert secret_of(bob) not in text, url
            assert not re.search(rf"\b{bob.username}\b", text), url
    assert (rows_of(bob), OutboxMessage.objects.count()) == (before, told)


def test_the_admins_index_names_no_model_to_staff_without_permissions(owned):
    page = client_of_staff().get(ADMIN).content.decode()

    listed = [f"/{app}/{name}/" for app, name in MODELS if f"{ADMIN}{app}/{name}/" in page]
    assert listed == []
