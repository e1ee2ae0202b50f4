"""Requeue and discard in the admin: the list, the dry run, the reason, and what is written down."""

import pytest
from django.contrib.admin.models import LogEntry

from outbox.database_clock import database_now
from outbox.models import OperatorAction, OutboxMessage, Status
from outbox.operator_actions import run_actions
from outbox.queries import list_overtaken_ids
from smartflow.kernel.clock import utc_now
from tests.admin_rows import make_row, operator_client

pytestmark = pytest.mark.django_db
LIST = "/admin/outbox/deadletter/"
VIEW = "outbox.view_outboxmessage"
BOTH = ("outbox.requeue_outboxmessage", "outbox.discard_outboxmessage")


@pytest.fixture
def operator():
    return operator_client(VIEW, *BOTH)


def tick(client, verb, *rows, **more):
    """Tick rows, choose the action, and return the page that asks for the reason."""
    return client.post(LIST, {"action": verb, "_selected_action": [row.pk for row in rows], **more})


def confirm(client, asked, *, reason="why"):
    """Fill in the page that asks for the reason."""
    return client.post(asked.context["post_to"], {"selection": asked.context["sealed"], "reason": reason})


def act(client, verb, *rows, reason="why", **more):
    return confirm(client, tick(client, verb, *rows, **more), reason=reason)


def listed(response):
    return [row.pk for row in response.context["cl"].result_list]


def test_list_shows_open_dead_rows_only_oldest_first(operator):
    dead = [make_row(Status.DEAD).pk for _ in range(3)]
    make_row()
    make_row(Status.DEAD, discarded_at=utc_now(), discard_reason="twin")
    assert listed(operator.get(LIST)) == dead


def test_list_tells_open_and_discarded_apart(operator):
    still_open, given_up = make_row(Status.DEAD), make_row(Status.DEAD, discarded_at=utc_now(), discard_reason="twin")
    assert listed(operator.get(LIST, {"discarded": "no"})) == [still_open.pk]
    assert listed(operator.get(LIST, {"discarded": "yes"})) == [given_up.pk]


def test_list_filters_by_type_beginning_of_the_error_and_key(operator):
    first = make_row(Status.DEAD, key="a", last_error="TimeoutError: x")
    second = make_row(Status.DEAD, key="b", last_error="ValueError: x", biz_type="other.kind.of")
    assert listed(operator.get(LIST, {"event_type": first.biz_type})) == [first.pk]
    assert listed(operator.get(LIST, {"error": "ValueError"})) == [second.pk]
    assert listed(operator.get(LIST, {"error": "x"})) == []
    assert listed(operator.get(LIST, {"key": "a"})) == [first.pk]
    assert listed(operator.get(LIST, {"key": "a", "error": "ValueError"})) == []


def test_list_pages_go_forth_and_back(operator):
    dead = [make_row(Status.DEAD, last_error="E").pk for _ in range(120)]
    first = operator.get(LIST, {"error": "E"})
    second = operator.get(LIST + first.context["cl"].next_page)
    third = operator.get(LIST + second.context["cl"].next_page)
    assert (listed(first), listed(second), listed(third)) == (dead[:50], dead[50:100], dead[100:])
    assert (first.context["cl"].previous_page, third.context["cl"].next_page) == ("", "")
    back = operator.get(LIST + third.context["cl"].previous_page)
    assert listed(back) == dead[50:100]
    assert listed(operator.get(LIST + back.context["cl"].previous_page)) == dead[:50]


def test_list_stops_after_a_while_and_goes_on_from_there(operator, monkeypatch):
    monkeypatch.setattr("outbox.admin.dead_letter_list.LOOKED_AT_MOST", 51)
    for _ in range(60):
        make_row(Status.DEAD, last_error="common")
    rare = make_row(Status.DEAD, last_error="rare")
    first = operator.get(LIST, {"error": "rare"})
    assert (listed(first), first.context["cl"].is_cut) == ([], True)
    assert "Looked at as many dead letters as one page does" in first.content.decode()
    assert listed(operator.get(LIST + first.context["cl"].next_page)) == [rare.pk]


def test_list_offers_no_counts_of_its_filters(operator):
    """They would count every dead row there is, once a choice."""
    make_row(Status.DEAD)
    assert "_facets" not in operator.get(LIST, {"error": "x"}).content.decode()
    assert operator.get(LIST, {"_facets": "True"}).context["cl"].add_facets is False


@pytest.mark.parametrize("query", ["after=x", "before=1~2", "after=99999999999999999999"])
def test_list_refuses_a_cursor_that_is_none(operator, query):
    assert operator.get(f"{LIST}?{query}").status_code == 302


def test_search_finds_dead_rows_of_a_key_only(operator):
    dead = [make_row(Status.DEAD, key="k").pk for _ in range(60)]
    make_row(key="k")
    first = operator.get(LIST, {"q": "k"})
    assert listed(first) == dead[:50]
    assert listed(operator.get(LIST + first.context["cl"].next_page)) == dead[50:]


def test_requeue_shows_the_dry_run_first_and_warns_about_order(operator):
    row = make_row(Status.DEAD, key="k")
    make_row(Status.CONSUMED, key="k")
    text = tick(operator, "requeue", row).content.decode()
    assert "1 dead letter fits" in text
    assert "may arrive after later events of the same key" in text
    assert "behind 1 of these rows a later event of the same key was already handled" in text
    assert 'name="reason"' in text
    assert OutboxMessage.objects.get(pk=row.pk).status == Status.DEAD
    assert not OperatorAction.objects.exists()


def test_discard_warns_that_what_waits_behind_the_row_goes_on_without_it(operator):
    row = make_row(Status.DEAD, key="k")
    make_row(key="k")
    assert "wait, and go on without it" in tick(operator, "discard", row).content.decode()


@pytest.mark.parametrize("reason", ["", "   "])
def test_requeue_moves_nothing_without_a_reason(operator, reason):
    row = make_row(Status.DEAD)
    assert "Say why" in act(operator, "requeue", row, reason=reason).content.decode()
    assert OutboxMessage.objects.get(pk=row.pk).status == Status.DEAD
    assert not LogEntry.objects.exists()


def test_requeue_moves_the_ticked_rows_and_writes_who_why_and_how_many(operator):
    first, second, other = (make_row(Status.DEAD, retry_count=20) for _ in range(3))
    response = act(operator, "requeue", first, second, reason="the handler is mended")
    assert (response.status_code, response.url) == (302, LIST)
    states = dict(OutboxMessage.objects.values_list("pk", "status"))
    assert states == {first.pk: "pending", second.pk: "pending", other.pk: "dead"}
    action = OperatorAction.objects.get()
    assert (action.verb, action.by, action.user.username, action.done_count) == ("requeue", "operator", "operator", 2)
    assert (action.reason, action.selection) == ("the handler is mended", {"ids": [first.pk, second.pk]})
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id) == ("operator", str(action.pk))
    assert entry.change_message == "requeue 2 of 2. Reason: the handler is mended"


def test_requeue_ignores_a_forged_select_across(operator):
    ticked, other = make_row(Status.DEAD), make_row(Status.DEAD)
    act(operator, "requeue", ticked, select_across="1")
    assert OutboxMessage.objects.get(pk=other.pk).status == Status.DEAD
    assert OutboxMessage.objects.get(pk=ticked.pk).status == Status.PENDING


def test_requeue_leaves_a_row_that_is_not_dead_alone(operator):
    row = make_row(Status.CONSUMED)
    act(operator, "requeue", row)
    assert OutboxMessage.objects.get(pk=row.pk).status == Status.CONSUMED


def test_discard_marks_the_row_and_keeps_it_visible(operator):
    row = make_row(Status.DEAD)
    act(operator, "discard", row, reason="written by hand meanwhile")
    row.refresh_from_db()
    assert (row.status, row.discard_reason) == (Status.DEAD, "written by hand meanwhile")
    assert (
        listed(operator.get(LIST, {"discarded": "yes"})) == listed(operator.get(LIST, {"q": row.event_id})) == [row.pk]
    )


def everything(client, verb, **filters):
    """Follow the list's link for everything that its filters let through."""
    links = {link["name"]: link["url"] for link in client.get(LIST, filters).context["cl"].verbs}
    return client.get(links[verb])


@pytest.mark.parametrize(("verb", "status"), [("requeue", Status.PENDING), ("discard", Status.DEAD)])
def test_everything_that_fits_the_filter_is_counted_first_and_then_moved(operator, verb, status):
    fitting = [make_row(Status.DEAD, last_error="TimeoutError: x") for _ in range(60)]
    other = make_row(Status.DEAD, last_error="ValueError: x")
    asked = everything(operator, verb, error="TimeoutError")
    assert "60 dead letters fit" in asked.content.decode()
    assert "The first 50 are shown" in asked.content.decode()
    later = make_row(Status.DEAD, last_error="TimeoutError: x")

    response = confirm(operator, asked)

    assert response.url == f"{LIST}?error=TimeoutError"
    rows = OutboxMessage.objects.in_bulk()
    assert {rows[row.pk].status for row in fitting} == {status}
    assert {rows[row.pk].discarded_at is None for row in fitting} == {verb == "requeue"}
    assert {(rows[pk].status, rows[pk].discarded_at) for pk in (other.pk, later.pk)} == {(Status.DEAD, None)}
    assert OperatorAction.objects.get().done_count == 60


def test_many_rows_are_left_to_the_background_and_its_page_is_shown(operator, monkeypatch):
    monkeypatch.setattr("outbox.selection.SMALL", 2)
    rows = [make_row(Status.DEAD) for _ in range(3)]
    asked = everything(operator, "requeue")
    assert "moved in the background" in asked.content.decode()
    assert confirm(operator, asked).url == LIST  # without the permission to see actions
    auditor = operator_client(VIEW, *BOTH, "outbox.view_operatoraction", username="auditor")
    assert confirm(auditor, asked).url == f"/admin/outbox/operatoraction/{OperatorAction.objects.last().pk}/change/"
    assert {OutboxMessage.objects.get(pk=row.pk).status for row in rows} == {Status.DEAD}


def test_nothing_that_fits_cannot_be_confirmed(operator):
    text = everything(operator, "requeue").content.decode()
    assert "0 dead letters fit" in text
    assert 'name="reason"' not in text


@pytest.mark.usefixtures("short_look")
def test_a_dry_run_that_found_nothing_yet_can_be_confirmed_and_looks_further_in_the_background(operator):
    others = [make_row(Status.DEAD, last_error="TimeoutError: x") for _ in range(4)]
    rare = make_row(Status.DEAD, last_error="KeyError: x")
    asked = everything(operator, "requeue", error="KeyError")
    text = asked.content.decode()
    assert "None of the first 2 dead letters fits" in text
    assert "moved in the background" in text
    assert 'name="reason"' in text

    confirm(operator, asked)
    run_actions(clock=database_now, seconds=30)

    states = dict(OutboxMessage.objects.values_list("pk", "status"))
    assert (states[rare.pk], {states[row.pk] for row in others}) == (Status.PENDING, {Status.DEAD})
    assert OperatorAction.objects.get().done_count == 1


def test_one_row_is_reached_by_its_id(operator):
    row, _other = make_row(Status.DEAD), make_row(Status.DEAD)
    assert operator.get(f"{LIST}requeue/?ids={row.pk}").context["preview"].ids == (row.pk,)


@pytest.mark.parametrize("ids", ["abc", "1,x", "-1", "9" * 30])
def test_rows_that_are_none_are_not_found(operator, ids):
    assert operator.get(f"{LIST}requeue/", {"ids": ids}).status_code == 404


@pytest.mark.parametrize("forged", ["", "e30", '{"key": ""}'])
def test_a_selection_that_this_site_did_not_make_is_refused(operator, forged):
    make_row(Status.DEAD)
    assert operator.post(f"{LIST}discard/", {"selection": forged, "reason": "why"}).status_code == 400
    assert not OutboxMessage.objects.exclude(discarded_at=None).exists()


@pytest.mark.parametrize("verb", ["requeue", "discard"])
@pytest.mark.parametrize(
    "missing", ["the verb", "to see rows", "both"], ids=["without-the-verb", "without-view", "without-both"]
)
def test_verbs_need_their_own_permission(operator, verb, missing):
    row = make_row(Status.DEAD)
    asked = tick(operator, verb, row)
    other = "outbox.discard_outboxmessage" if verb == "requeue" else "outbox.requeue_outboxmessage"
    own = f"outbox.{verb}_outboxmessage"
    held = {"the verb": (VIEW, other), "to see rows": (own,), "both": ()}[missing]
    client = operator_client(*held, username="bob")

    tick(client, verb, row)
    assert confirm(client, asked).status_code == 403
    assert client.get(f"{LIST}{verb}/").status_code == 403
    if VIEW in held:
        assert verb not in {link["name"] for link in client.get(LIST).context["cl"].verbs}
    row.refresh_from_db()
    assert (row.status, row.discarded_at) == (Status.DEAD, None)
    assert not LogEntry.objects.exists()
    assert not OperatorAction.objects.exists()


def test_list_overtaken_ids_names_rows_with_a_handled_follower():
    overtaken, last = make_row(Status.DEAD, key="a"), make_row(Status.DEAD, key="b")
    make_row(Status.CONSUMED, key="a")
    assert list_overtaken_ids(ids=[overtaken.pk, last.pk]) == [overtaken.pk]
