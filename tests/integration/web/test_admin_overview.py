"""The admin's first page and its refreshing part."""

import pytest

from chat.contracts import RunState
from outbox.models import Status
from tests.admin_rows import make_chat, make_row, make_run, operator_client

pytestmark = pytest.mark.django_db


def figures(response):
    return {card.name: card.figure for card in response.context["cards"]}


def test_overview_shows_depth_lag_dead_letters_and_runs(alice):
    client = operator_client("outbox.view_outboxmessage", "chat.view_chatrun")
    make_row(age_seconds=200)
    make_row(Status.PUBLISHED)
    make_row(Status.DEAD)
    make_run(make_chat(alice), state=RunState.RUNNING)
    shown = figures(client.get("/admin/"))
    assert shown.pop("oldest").startswith("3m 2")
    assert shown == {"pending": "1", "published": "1", "dead": "1", "runs": "1"}


def test_overview_part_is_what_the_page_fetches_again():
    client = operator_client("outbox.view_outboxmessage")
    assert 'hx-get="/admin/overview/"' in client.get("/admin/").content.decode()
    before = figures(client.get("/admin/overview/"))
    make_row()
    after = client.get("/admin/overview/")
    assert (before["pending"], figures(after)["pending"]) == ("0", "1")
    assert after.content.decode().strip().startswith('<section id="overview"')
    assert "no-store" in after["Cache-Control"]


def test_overview_cards_lead_to_the_matching_list():
    client = operator_client("outbox.view_outboxmessage", "chat.view_chatrun")
    for card in client.get("/admin/").context["cards"]:
        assert client.get(card.url).status_code == 200


def test_overview_shows_nothing_one_may_not_see():
    assert figures(operator_client().get("/admin/")) == {}
    assert "runs" not in figures(operator_client("outbox.view_outboxmessage", username="two").get("/admin/"))


def test_overview_part_makes_a_signed_out_page_reload(client):
    response = client.get("/admin/overview/")
    assert (response.status_code, response["HX-Refresh"]) == (204, "true")


def test_page_loads_nothing_from_other_hosts():
    text = operator_client("outbox.view_outboxmessage").get("/admin/").content.decode()
    assert 'src="http' not in text
    assert 'rel="stylesheet" href="http' not in text


def test_sidebar_lists_only_what_may_be_opened():
    text = operator_client("outbox.view_outboxmessage").get("/admin/").content.decode()
    assert "/admin/outbox/deadletter/" in text
    assert "/admin/accounts/user/" not in text
