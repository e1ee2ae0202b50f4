"""The audit list, an action's progress and its stop, and pausing event types, in the admin."""

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from outbox.models import OperatorAction, PausedType
from smartflow.kernel.clock import utc_now
from tests.admin_rows import EVENT_TYPE, operator_client

pytestmark = pytest.mark.django_db
LIST = "/admin/outbox/operatoraction/"
TYPES, PAUSE, RESUME = LIST + "types/", LIST + "pause/", LIST + "resume/"
VIEW_ROWS, VIEW_ACTIONS = "outbox.view_outboxmessage", "outbox.view_operatoraction"


def make_action(**fields):
    values = {"verb": "requeue", "state": "running", "reason": "mended", "by": "alice", "requested_at": utc_now()}
    return OperatorAction.objects.create(**{**values, **fields})


@pytest.fixture
def auditor():
    return operator_client(VIEW_ACTIONS)


def test_list_shows_who_what_why_and_how_far(auditor):
    make_action(selection={"event_type": EVENT_TYPE, "error": "Timeout"}, expected_count=100_000, done_count=57_000)
    text = auditor.get(LIST).content.decode()
    for part in ("alice", "mended", EVENT_TYPE, "Timeout", "57,000 / 100,000"):
        assert part in text


def test_list_is_read_by_key_newest_first(auditor):
    ids = [make_action().pk for _ in range(60)][::-1]
    first = auditor.get(LIST)
    assert [row.pk for row in first.context["cl"].result_list] == ids[:50]
    second = auditor.get(LIST + first.context["cl"].next_page)
    assert [row.pk for row in second.context["cl"].result_list] == ids[50:]


def test_nobody_writes_an_action_by_hand():
    client = operator_client(VIEW_ACTIONS, VIEW_ROWS)
    action = make_action()
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}{action.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(f"{LIST}{action.pk}/change/", {"by": "mallory"})
    action.refresh_from_db()
    assert action.by == "alice"


def test_progress_is_fetched_again_until_the_action_is_over(auditor):
    action = make_action(expected_count=200, done_count=50, selection={"ids": [7, 9]})
    url = f"{LIST}{action.pk}/progress/"
    page = auditor.get(f"{LIST}{action.pk}/change/").content.decode()
    assert f'hx-get="{url}"' in page
    assert "#7, #9" in page
    running = auditor.get(url)
    assert (running.context["percent"], "hx-get" in running.content.decode()) == (25, True)
    assert "no-store" in running["Cache-Control"]
    OperatorAction.objects.update(state="done", done_count=190, finished_at=utc_now())
    over = auditor.get(url)
    assert (over.context["percent"], "hx-get" in over.content.decode()) == (100, False)


@pytest.mark.parametrize("page", ["change", "progress"])
def test_an_action_is_shown_to_who_may_see_actions_only(auditor, page):
    url = f"{LIST}{make_action().pk}/{page}/"
    assert operator_client(VIEW_ROWS, "outbox.requeue_outboxmessage", username="bob").get(url).status_code == 403
    assert auditor.get(url).status_code == 200
    assert auditor.get(f"{LIST}999/{page}/").status_code == 404
    assert Client().get(url).status_code == 302


def test_stop_asks_the_worker_to_end_and_says_who_stopped_it():
    client = operator_client(VIEW_ACTIONS, VIEW_ROWS, "outbox.requeue_outboxmessage")
    action = make_action()
    assert "Stop" in client.get(f"{LIST}{action.pk}/change/").content.decode()
    assert client.post(f"{LIST}{action.pk}/stop/").url == f"{LIST}{action.pk}/change/"
    action.refresh_from_db()
    assert (action.is_stop_requested, action.stopped_by) == (True, "operator")
    assert LogEntry.objects.get().object_id == str(action.pk)
    assert "/stop/" not in client.get(f"{LIST}{action.pk}/change/").content.decode()


def test_stop_of_an_action_that_is_over_changes_nothing():
    client = operator_client(VIEW_ACTIONS, VIEW_ROWS, "outbox.requeue_outboxmessage")
    action = make_action(state="done")
    text = client.post(f"{LIST}{action.pk}/stop/", follow=True).content.decode()
    assert "over already" in text
    action.refresh_from_db()
    assert not action.is_stop_requested


@pytest.mark.parametrize(
    ("verb", "held"),
    [
        ("requeue", (VIEW_ACTIONS, VIEW_ROWS, "outbox.discard_outboxmessage")),
        ("discard", (VIEW_ACTIONS, VIEW_ROWS, "outbox.requeue_outboxmessage")),
        ("requeue", (VIEW_ACTIONS, "outbox.requeue_outboxmessage")),
        ("prune", (VIEW_ACTIONS, VIEW_ROWS, "outbox.requeue_outboxmessage", "outbox.discard_outboxmessage")),
    ],
)
def test_stop_needs_the_permission_of_the_verb(verb, held):
    client, action = operator_client(*held), make_action(verb=verb)
    assert "/stop/" not in client.get(f"{LIST}{action.pk}/change/").content.decode()
    assert client.post(f"{LIST}{action.pk}/stop/").status_code == 403
    action.refresh_from_db()
    assert not action.is_stop_requested


def test_stop_is_not_reached_by_a_link():
    client, action = operator_client(VIEW_ROWS, "outbox.requeue_outboxmessage"), make_action()
    assert client.get(f"{LIST}{action.pk}/stop/").status_code == 405


def test_event_types_are_paused_and_go_on_with_a_reason():
    client = operator_client(VIEW_ROWS, "outbox.pause_outboxmessage")
    assert f"{PAUSE}?event_type={EVENT_TYPE}" in client.get(TYPES).content.decode()
    asked = client.get(PAUSE, {"event_type": EVENT_TYPE}).content.decode()
    assert EVENT_TYPE in asked
    assert "later events of the same keys" in asked

    assert client.post(PAUSE, {"event_type": EVENT_TYPE, "reason": "a bad deploy"}).url == TYPES
    paused = PausedType.objects.get()
    assert (paused.event_type, paused.by, paused.reason) == (EVENT_TYPE, "operator", "a bad deploy")
    text = client.get(TYPES).content.decode()
    assert "a bad deploy" in text
    assert f"{RESUME}?event_type={EVENT_TYPE}" in text

    client.post(RESUME, {"event_type": EVENT_TYPE, "reason": "mended"})
    assert not PausedType.objects.exists()
    entries = OperatorAction.objects.order_by("id").values_list("verb", "by", "user__username", "reason")
    assert list(entries) == [
        ("pause", "operator", "operator", "a bad deploy"),
        ("resume", "operator", "operator", "mended"),
    ]
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize(
    ("url", "event_type", "told"),
    [
        (PAUSE, "no.such.type", "There is no such event type"),
        (RESUME, EVENT_TYPE, "is not paused"),
    ],
)
def test_what_cannot_be_paused_or_resumed_is_said_in_words(url, event_type, told):
    client = operator_client(VIEW_ROWS, "outbox.pause_outboxmessage")
    assert told in client.post(url, {"event_type": event_type, "reason": "r"}, follow=True).content.decode()
    assert not OperatorAction.objects.exists()


@pytest.mark.parametrize("url", [PAUSE, RESUME])
def test_pause_and_resume_need_a_reason(url):
    client = operator_client(VIEW_ROWS, "outbox.pause_outboxmessage")
    assert "Say why" in client.post(url, {"event_type": EVENT_TYPE, "reason": " "}).content.decode()
    assert not OperatorAction.objects.exists()


@pytest.mark.parametrize("url", [PAUSE, RESUME])
@pytest.mark.parametrize(
    "held",
    [(VIEW_ROWS, "outbox.requeue_outboxmessage", "outbox.discard_outboxmessage"), ("outbox.pause_outboxmessage",)],
)
def test_pause_and_resume_need_their_own_permission(url, held):
    PausedType.objects.create(event_type="kept", reason="r", by="alice", paused_at=utc_now())
    client = operator_client(*held)
    assert client.get(url, {"event_type": EVENT_TYPE}).status_code == 403
    for event_type in (EVENT_TYPE, "kept"):
        assert client.post(url, {"event_type": event_type, "reason": "r"}).status_code == 403
    assert [paused.pk for paused in PausedType.objects.all()] == ["kept"]
    assert not OperatorAction.objects.exists()


def test_event_types_show_no_buttons_without_the_permission():
    text = operator_client(VIEW_ROWS).get(TYPES).content.decode()
    assert EVENT_TYPE in text
    assert PAUSE not in text
    assert operator_client(VIEW_ACTIONS, username="bob").get(TYPES).status_code == 403
