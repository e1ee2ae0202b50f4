"""Requeue and discard, from the list of dead letters to the log."""

import pytest
from django.contrib.admin.models import LogEntry

from outbox.models import OutboxMessage, Status
from outbox.queries import list_overtaken_ids
from smartflow.kernel.clock import utc_now
from tests.admin_rows import make_row, operator_client

pytestmark = pytest.mark.django_db
LIST = "/admin/outbox/deadletter/"
BOTH = ("outbox.requeue_outboxmessage", "outbox.discard_outboxmessage")


@pytest.fixture
def operator():
    return operator_client("outbox.view_outboxmessage", *BOTH)


def act(client, verb, *rows, **more):
    return client.post(LIST, {"action": verb, "_selected_action": [row.pk for row in rows], **more})


def listed(response):
    return [row.pk for row in response.context["cl"].result_list]


def test_list_shows_dead_rows_only_oldest_first(operator):
    dead = [make_row(Status.DEAD).pk for _ in range(3)]
    make_row()
    assert listed(operator.get(LIST)) == dead


def test_list_tells_open_and_discarded_apart(operator):
    still_open, given_up = make_row(Status.DEAD), make_row(Status.DEAD, discarded_at=utc_now(), discard_reason="twin")
    assert listed(operator.get(LIST, {"discarded": "no"})) == [still_open.pk]
    assert listed(operator.get(LIST, {"discarded": "yes"})) == [given_up.pk]


def test_search_finds_dead_rows_of_a_key_only(operator):
    dead = [make_row(Status.DEAD, key="k").pk for _ in range(60)]
    make_row(key="k")
    first = operator.get(LIST, {"q": "k"})
    assert listed(first) == dead[:50]
    assert listed(operator.get(LIST + first.context["cl"].next_page)) == dead[50:]


def test_requeue_asks_for_a_reason_first_and_warns_about_order(operator):
    row = make_row(Status.DEAD, key="k")
    make_row(Status.CONSUMED, key="k")
    response = act(operator, "requeue", row)
    text = response.content.decode()
    assert "may arrive after later events of the same key" in text
    assert "Behind 1 of these rows" in text
    assert 'name="reason"' in text
    assert OutboxMessage.objects.get(pk=row.pk).status == Status.DEAD


@pytest.mark.parametrize("reason", ["", "   "])
def test_requeue_moves_nothing_without_a_reason(operator, reason):
    row = make_row(Status.DEAD)
    assert "Say why" in act(operator, "requeue", row, reason=reason).content.decode()
    assert OutboxMessage.objects.get(pk=row.pk).status == Status.DEAD
    assert not LogEntry.objects.exists()


def test_requeue_moves_the_ticked_rows_and_logs_who_why_and_how_many(operator):
    first, second, other = (make_row(Status.DEAD, retry_count=20) for _ in range(3))
    response = act(operator, "requeue", first, second, reason="the handler is mended")
    assert response.status_code == 302
    states = dict(OutboxMessage.objects.values_list("pk", "status"))
    assert states == {first.pk: "pending", second.pk: "pending", other.pk: "dead"}
    entry = LogEntry.objects.get()
    assert entry.user.username == "operator"
    assert "requeue 2 of 2" in entry.change_message
    assert "the handler is mended" in entry.change_message
    assert f"{first.pk}, {second.pk}" in entry.change_message


def test_requeue_ignores_a_forged_select_across(operator):
    ticked, other = make_row(Status.DEAD), make_row(Status.DEAD)
    act(operator, "requeue", ticked, reason="why", select_across="1")
    assert OutboxMessage.objects.get(pk=other.pk).status == Status.DEAD
    assert OutboxMessage.objects.get(pk=ticked.pk).status == Status.PENDING


def test_requeue_leaves_a_row_that_is_not_dead_alone(operator):
    row = make_row(Status.CONSUMED)
    act(operator, "requeue", row, reason="why")
    assert OutboxMessage.objects.get(pk=row.pk).status == Status.CONSUMED


def test_discard_marks_the_row_and_keeps_it_visible(operator):
    row = make_row(Status.DEAD)
    act(operator, "discard", row, reason="written by hand meanwhile")
    row.refresh_from_db()
    assert (row.status, row.discard_reason) == (Status.DEAD, "written by hand meanwhile")
    assert row.pk in listed(operator.get(LIST))
    assert "discard 1 of 1" in LogEntry.objects.get().change_message


@pytest.mark.parametrize("verb", ["requeue", "discard"])
def test_verbs_need_their_own_permission(verb):
    row = make_row(Status.DEAD)
    other = "outbox.discard_outboxmessage" if verb == "requeue" else "outbox.requeue_outboxmessage"
    client = operator_client("outbox.view_outboxmessage", other)
    act(client, verb, row, reason="why")
    row.refresh_from_db()
    assert (row.status, row.discarded_at) == (Status.DEAD, None)
    assert not LogEntry.objects.exists()


def test_list_overtaken_ids_names_rows_with_a_handled_follower():
    overtaken, last = make_row(Status.DEAD, key="a"), make_row(Status.DEAD, key="b")
    make_row(Status.CONSUMED, key="a")
    assert list_overtaken_ids(ids=[overtaken.pk, last.pk]) == [overtaken.pk]
