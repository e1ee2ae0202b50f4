"""The admin's first page and its refreshing part."""

from datetime import timedelta

import pytest

from chat.contracts import RunState
from outbox.models import KeyHold, MinuteCount, PausedType, Status, Worker
from smartflow.kernel.clock import utc_now
from tests.admin_rows import EVENT_TYPE, make_chat, make_row, make_run, operator_client

pytestmark = pytest.mark.django_db


def figures(response):
    console = response.context["console"]
    cards = [*(console["cards"] if console else []), *response.context["cards"]]
    return {card.name: card.figure for card in cards}


def troubles(client):
    console = client.get("/admin/overview/").context["console"]
    return console["tone"], [trouble["finding"].name for trouble in console["troubles"]]


def work(name="relay-0", kind="relay", *, age=1, **state):
    at = utc_now() - timedelta(seconds=age)
    moments = {"started_at": at, "heartbeat_at": at, "lease_until": at + timedelta(seconds=10)}
    Worker.objects.create(name=name, kind=kind, owner="host:1", state=state, **moments)


def all_at_work():
    work(slot=0, slots=1, shards=[0, 63], breaker="closed", published=9)
    places = [{"topic": "t", "partition": 0, "position": 5, "end": 9, "lag": 4}]
    work("consumer host:2", "consumer", partitions=places, consumed=9, busy_seconds=0)


@pytest.fixture
def operator():
    return operator_client("outbox.view_outboxmessage")


def test_overview_shows_every_figure_and_the_runs(alice):
    client = operator_client("outbox.view_outboxmessage", "chat.view_chatrun")
    now = utc_now()
    make_row(age_seconds=200)
    make_row(next_retry_at=now + timedelta(minutes=1), retry_count=1)
    make_row(Status.PUBLISHED)
    make_row(Status.DEAD)
    KeyHold.objects.create(message_key="k", head_id=1, since=now)
    MinuteCount.objects.create(minute=now.replace(second=0, microsecond=0) - timedelta(minutes=1), written=60 * 500)
    make_run(make_chat(alice), state=RunState.RUNNING)
    shown = figures(client.get("/admin/"))
    assert shown.pop("oldest").startswith("3m 2")
    assert shown.pop("in").endswith("/s")
    assert shown == {
        **{"out": "0/s", "pending": "2", "retrying": "1", "published": "1", "blocked": "1", "dead": "1"},
        "runs": "1",
    }


def test_overview_says_that_all_is_well(operator):
    all_at_work()
    console = operator.get("/admin/").context["console"]
    assert (console["tone"], console["troubles"]) == ("good", [])
    assert str(console["headline"]).startswith("All is well: 0 events a second come in")


def test_overview_says_first_what_is_worst_and_where_to_look(operator):
    now = utc_now()
    head = make_row(Status.DEAD, key="k", last_error="ToolFailed: why")
    KeyHold.objects.create(message_key="k", head_id=head.pk, since=now - timedelta(minutes=5))
    PausedType.objects.create(event_type=EVENT_TYPE, reason="r", by="alice", paused_at=now)
    make_row(age_seconds=200)
    work(slot=0, slots=2, breaker="open")
    assert troubles(operator) == (
        "bad",
        ["relay_missing", "broker_away", "no_consumer", "dead", "blocked", "publishing_late", "paused"],
    )
    text = operator.get("/admin/").content.decode()
    for part in ("1 dead letter waits for a decision.", "/admin/outbox/deadletter/?discarded=no", "ToolFailed"):
        assert part in text, part


def test_overview_tells_a_relay_that_is_silent_from_one_that_is_at_work(operator):
    all_at_work()
    assert troubles(operator) == ("good", [])
    Worker.objects.update(heartbeat_at=utc_now() - timedelta(seconds=11))
    assert troubles(operator) == ("bad", ["no_relay", "no_consumer"])


def test_overview_notes_a_pause_without_alarm(operator):
    all_at_work()
    PausedType.objects.create(event_type=EVENT_TYPE, reason="mail is away", by="alice", paused_at=utc_now())
    assert troubles(operator) == ("calm", ["paused"])
    text = operator.get("/admin/").content.decode()
    assert "All is well" in text
    assert "mail is away" in text


def test_overview_draws_the_last_hour(operator):
    now = utc_now().replace(second=0, microsecond=0)
    MinuteCount.objects.create(minute=now - timedelta(minutes=30), written=6000, published=6000, dead=2)
    chart = operator.get("/admin/").context["console"]["chart"]
    assert [(series.name, series.total) for series in chart.series] == [
        ("written", "6,000"),
        ("published", "6,000"),
        ("consumed", "0"),
    ]
    points = [float(point.partition(",")[2]) for point in chart.series[0].points.split(" ")]
    assert (len(points), points.index(min(points)), min(points)) == (61, 30, float(chart.grid[-1][0]))
    assert [number for number, piece in enumerate(chart.slices) if piece.has_dead] == [30]


def test_overview_part_is_what_the_page_fetches_again(operator):
    text = operator.get("/admin/").content.decode()
    assert 'hx-get="/admin/overview/"' in text
    assert "[!document.hidden]" in text
    before = figures(operator.get("/admin/overview/"))
    make_row()
    after = operator.get("/admin/overview/")
    assert (before["pending"], figures(after)["pending"]) == ("0", "1")
    assert after.content.decode().strip().startswith('<section id="overview"')
    assert "no-store" in after["Cache-Control"]


def test_overview_leads_to_pages_that_open():
    client = operator_client("outbox.view_outboxmessage", "chat.view_chatrun")
    make_row(Status.DEAD)
    make_row(age_seconds=200)
    response = client.get("/admin/")
    console = response.context["console"]
    urls = [card.url for card in (*console["cards"], *response.context["cards"])]
    urls += [trouble["url"] for trouble in console["troubles"]]
    for url in urls:
        assert url.startswith("#") or client.get(url).status_code == 200, url
    anchors = [url for url in urls if url.startswith("#")]
    assert anchors
    assert all(f'id="{anchor[1:]}"' in response.content.decode() for anchor in anchors)


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
