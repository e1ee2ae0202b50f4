"""The page of one row tells its whole story; the page of a key tells what it waits for."""

from dataclasses import replace
from datetime import timedelta

import pytest

from outbox.dead_letters import discard, requeue, requeue_dead_letters
from outbox.models import Attempt, KeyHold, OperatorAction, PausedType, Status
from outbox.operator_actions import run_actions
from outbox.selection import Selection
from smartflow.kernel.clock import utc_now
from tests.admin_rows import EVENT_TYPE, make_row, operator_client
from tests.outbox_rows import change

pytestmark = pytest.mark.django_db
KEY_PAGE = "/admin/outbox/outboxmessage/key/"
VIEW, REQUEUE, DISCARD = (f"outbox.{verb}_outboxmessage" for verb in ("view", "requeue", "discard"))


@pytest.fixture
def operator():
    return operator_client(VIEW, "outbox.view_payload")


def page_of(client, row):
    return client.get(f"/admin/outbox/outboxmessage/{row.pk}/change/")


def told(response):
    return [str(moment.title) for moment in response.context["story"]]


def blocked(key="k", *, followers=2):
    head = make_row(Status.DEAD, key=key, last_error="ToolFailed: why")
    rows = [make_row(key=key) for _ in range(followers)]
    for row in rows:
        change(row.pk, ready_shard=None)
    KeyHold.objects.create(message_key=key, head_id=head.pk, since=utc_now())
    return head, rows


def act(verb, *, by="alice", reason="r", at, **selection):
    return OperatorAction.objects.create(
        verb=verb, by=by, reason=reason, requested_at=at, finished_at=at, state="done", selection=selection
    )


def test_row_page_tells_everything_in_the_order_in_which_it_happened(operator):
    now = utc_now()
    row = make_row(
        Status.CONSUMED,
        age_seconds=900,
        request_id="req-7",
        published_by="relay:1",
        published_partition=2,
        published_offset=991,
        consumed_by="consumer host:2",
    )
    change(row.pk, published_at=now - timedelta(seconds=50), consumed_at=now - timedelta(seconds=49))
    for number in (1, 2):
        at = now - timedelta(seconds=800 - number)
        Attempt.objects.create(
            message_id=row.pk, step="handle", number=number, at=at, seconds=1.5, by="host:9", error="ToolFailed: why"
        )
    mine = act("requeue", at=now - timedelta(seconds=100), ids=[row.pk, 1])
    act("requeue", by="bob", at=now - timedelta(seconds=90), ids=[row.pk + 1])
    change(row.pk, action_ids=f"{mine.pk} ")
    response = page_of(operator, row)
    assert told(response) == [
        "Written",
        "Try 1 to handle failed",
        "Try 2 to handle failed",
        "Requeued by alice",
        "Published",
        "Handled",
    ]
    text = response.content.decode()
    for part in (
        *("req-7", "by host:9, after 1.500 s", "ToolFailed: why", "by relay:1", "partition 2, offset 991"),
        *("by consumer host:2", f"/admin/chat/chathistory/by-event-id/{row.event_id}/"),
    ):
        assert part in text, part


@pytest.mark.parametrize("small", [0, 500], ids=["in the background", "at once"])
def test_row_page_tells_everything_that_operators_did_to_many_rows(operator, small, monkeypatch):
    monkeypatch.setattr("outbox.selection.SMALL", small)
    row, now = make_row(Status.DEAD), utc_now() + timedelta(seconds=1)
    other = make_row(Status.DEAD, biz_type="another.kind.of")
    everything = Selection(event_type=EVENT_TYPE)
    for by, move, selection in (
        ("alice", discard, everything),
        ("bob", requeue, replace(everything, is_discarded=True)),
    ):
        move(selection=selection, by=by, reason="r", now=now)
        run_actions(clock=lambda at=now: at, seconds=30)
        now += timedelta(seconds=1)

    story = told(page_of(operator, row))

    assert story == ["Written", "Discarded by alice", "Requeued by bob"]
    assert told(page_of(operator, other)) == ["Written", "Parked as a dead letter"]


def test_row_page_tells_the_newest_verbs_of_a_row_that_was_moved_very_often(operator):
    actions = [act("requeue", by=f"user-{number}", at=utc_now()).pk for number in range(3)]
    row = make_row(action_ids=" ".join(["99"] * 90)[: 255 - 6] + f"{actions[1]:>3} {actions[2]} ")
    assert told(page_of(operator, row)) == ["Written", "Requeued by user-1", "Requeued by user-2"]


def test_the_room_for_the_numbers_of_verbs_is_never_too_small(operator):
    row = make_row(Status.DEAD, action_ids="1234567 " * 31 + "123456 ")
    requeue_dead_letters(ids=[row.pk], by="alice", reason="r", now=utc_now())
    row.refresh_from_db()
    assert (len(row.action_ids), row.action_ids.split()[-1]) == (255, str(OperatorAction.objects.get().pk))
    assert told(page_of(operator, row)) == ["Written", "Requeued by alice"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "Ready: the next claim of a relay takes it."),
        ({"claim_token": "t", "lease_until": utc_now() + timedelta(days=1)}, "A relay is publishing it"),
        ({"claim_token": "t", "lease_until": utc_now() - timedelta(days=1)}, "A relay had it and was not heard of"),
        ({"retry_count": 1, "next_retry_at": utc_now() + timedelta(days=1)}, "Waits for its next try in "),
        ({"status": Status.PUBLISHED}, "Published; no consumer has handled it yet."),
        ({"status": Status.CONSUMED}, "Handled, "),
        ({"status": Status.DEAD}, "Dead, and later events of its key wait behind it"),
        ({"status": Status.DEAD, "discarded_at": utc_now()}, "Given up by an operator"),
    ],
)
def test_row_page_says_its_state_in_words(operator, fields, sentence):
    assert str(page_of(operator, make_row(**fields)).context["sentence"]).startswith(sentence)


def test_row_page_leads_from_a_held_row_to_the_dead_letter_it_waits_for(operator):
    head, rows = blocked()
    response = page_of(operator, rows[1])
    assert str(response.context["sentence"]) == f"Held behind row #{head.pk}, a dead letter that blocks its key."
    assert [link["url"] for link in response.context["links"]] == [f"/admin/outbox/outboxmessage/{head.pk}/change/"]


def test_row_page_leads_from_a_row_of_a_paused_type_to_the_event_types(operator):
    row = make_row(key="k")
    change(row.pk, ready_shard=None)
    KeyHold.objects.create(message_key="k", head_id=row.pk, since=utc_now())
    PausedType.objects.create(event_type=EVENT_TYPE, reason="mail is away", by="alice", paused_at=utc_now())
    response = page_of(operator, row)
    assert str(response.context["sentence"]) == f"Held: the event type {EVENT_TYPE} is paused (mail is away)."
    assert [link["url"] for link in response.context["links"]] == ["/admin/outbox/operatoraction/types/"]


def test_row_page_offers_the_verbs_one_may_use():
    row = make_row(Status.DEAD)
    both = page_of(operator_client(VIEW, REQUEUE, DISCARD), row).context["links"]
    assert [link["url"] for link in both] == [
        f"/admin/outbox/deadletter/requeue/?ids={row.pk}",
        f"/admin/outbox/deadletter/discard/?ids={row.pk}",
    ]
    assert page_of(operator_client(VIEW, username="reader"), row).context["links"] == []


def test_key_page_shows_what_blocks_it_with_the_verbs_for_its_head():
    head, _rows = blocked(followers=3)
    response = operator_client(VIEW, REQUEUE, "outbox.view_payload").get(KEY_PAGE, {"key": "k"})
    assert response.context["is_blocked"]
    sentence = f"Blocked by row #{head.pk}, a dead letter ({EVENT_TYPE}); 3 events wait behind it."
    assert str(response.context["sentence"]) == sentence
    assert f"/admin/outbox/deadletter/requeue/?ids={head.pk}" in [link["url"] for link in response.context["links"]]
    assert "ToolFailed: why" in response.content.decode()
    assert [line.is_current for line in response.context["table"].lines] == [True, False, False, False]


@pytest.mark.parametrize("discarded", [2, 3, 9])
def test_key_page_names_what_blocks_it_however_many_dead_letters_were_discarded(operator, discarded, monkeypatch):
    monkeypatch.setattr("outbox.queries.keys.DEAD_SEEN", 3)
    head = make_row(Status.DEAD, key="k")
    make_row(Status.DEAD, key="another")
    for _ in range(discarded):
        make_row(Status.DEAD, key="k", discarded_at=utc_now(), discard_reason="r")
    response = operator.get(KEY_PAGE, {"key": "k"})
    assert (response.context["is_blocked"], response.context["standing"].head.pk) == (True, head.pk)


def test_key_page_names_an_open_dead_letter_that_nothing_waits_behind_yet(operator):
    make_row(Status.DEAD, key="k", discarded_at=utc_now(), discard_reason="r")
    head = make_row(Status.DEAD, key="k")
    response = operator.get(KEY_PAGE, {"key": "k"})
    assert (response.context["is_blocked"], response.context["standing"].head.pk) == (True, head.pk)


def test_key_page_shows_the_newest_rows_and_pages_back_and_forth(operator):
    rows = [make_row(Status.CONSUMED if n % 3 else Status.DEAD, key="k").pk for n in range(120)]

    def shown(url, data=None):
        response = operator.get(url, data)
        return response, [
            int(line.cells[0].partition("#")[2].partition("<")[0]) for line in response.context["table"].lines
        ]

    newest, ids = shown(KEY_PAGE, {"key": "k"})
    assert (ids, newest.context["later_url"]) == (rows[70:], "")
    middle, ids = shown(newest.context["earlier_url"])
    assert ids == rows[20:70]
    oldest, ids = shown(middle.context["earlier_url"])
    assert (ids, oldest.context["earlier_url"]) == (rows[:20], "")
    assert shown(oldest.context["later_url"])[1] == rows[20:70]


def test_key_page_of_an_unknown_key_says_so(operator):
    response = operator.get(KEY_PAGE, {"key": "nobody <script>"})
    assert "No event has this key." in response.content.decode()
    assert "<script>alert" not in response.content.decode()
    assert "nobody &lt;script&gt;" in response.content.decode()


def test_key_page_is_closed_without_the_permission():
    assert operator_client().get(KEY_PAGE, {"key": "k"}).status_code == 403
