"""The operators' pages of outbox rows."""

from datetime import timedelta

import pytest

from outbox.models import Attempt, KeyHold, Status
from outbox.queries import list_key_ids, list_neighbours
from smartflow.kernel.clock import utc_now
from tests.admin_rows import EVENT_TYPE, make_row, operator_client
from tests.outbox_rows import change

pytestmark = pytest.mark.django_db
LIST = "/admin/outbox/outboxmessage/"


@pytest.fixture
def operator():
    return operator_client("outbox.view_outboxmessage")


def listed(response):
    return [row.pk for row in response.context["cl"].result_list]


def filters_of(response):
    return [str(spec.title) for spec in response.context["cl"].filter_specs]


def hold(row):
    change(row.pk, ready_shard=None)
    return row


def page_of(row):
    return f"{LIST}{row.pk}/change/"


def test_list_pages_by_key_forth_and_back(operator):
    rows = [make_row().pk for _ in range(120)]
    newest_first = rows[::-1]
    first = operator.get(LIST)
    assert listed(first) == newest_first[:50]
    assert not first.context["cl"].previous_page
    second = operator.get(LIST + first.context["cl"].next_page)
    third = operator.get(LIST + second.context["cl"].next_page)
    assert listed(second) == newest_first[50:100]
    assert listed(third) == newest_first[100:]
    assert not third.context["cl"].next_page
    assert listed(operator.get(LIST + third.context["cl"].previous_page)) == newest_first[50:100]
    assert listed(operator.get(LIST + second.context["cl"].previous_page)) == newest_first[:50]


def test_list_starts_again_when_a_filter_is_chosen_on_a_later_page(operator):
    for _ in range(60):
        make_row()
    second = operator.get(LIST + operator.get(LIST).context["cl"].next_page)
    assert "after" not in second.context["cl"].get_query_string({"status": "dead"})


def test_list_survives_a_cursor_that_is_none(operator):
    make_row()
    response = operator.get(LIST, {"after": "nonsense"})
    assert response.status_code == 302
    assert response["Location"].endswith("?e=1")


def test_list_shows_states_finer_than_the_column(operator):
    make_row(retry_count=3, next_retry_at=utc_now() + timedelta(minutes=9))
    make_row(next_retry_at=utc_now() + timedelta(minutes=9))
    make_row(claim_token="t", lease_until=utc_now() + timedelta(seconds=9))
    make_row()
    hold(make_row())
    make_row(Status.DEAD, discarded_at=utc_now(), discard_reason="twin")
    text = operator.get(LIST).content.decode()
    for state in ("retrying", "waiting", "in flight", "ready", "held", "discarded"):
        assert f"\n{state}\n" in text


def test_list_filters_by_state(operator):
    now = utc_now()
    late = make_row(next_retry_at=now + timedelta(minutes=9))
    soon = make_row(next_retry_at=now + timedelta(minutes=1))
    ready, held, dead = make_row(), hold(make_row()), make_row(Status.DEAD)
    expected = {
        "pending": [held, ready, soon, late],
        "ready": [ready],
        "unscheduled": [ready, held],
        "waiting": [soon, late],
        "dead": [dead],
        "published": [],
    }
    for state, rows in expected.items():
        assert listed(operator.get(LIST, {"status": state})) == [row.pk for row in rows], state


def test_list_of_waiting_rows_pages_in_the_order_of_their_next_try(operator):
    at = utc_now() + timedelta(minutes=1)
    rows = [make_row(next_retry_at=at + timedelta(seconds=n % 7)) for n in range(70)]
    in_order = [row.pk for row in sorted(rows, key=lambda row: (row.next_retry_at, row.pk))]
    first = operator.get(LIST, {"status": "waiting"})
    second = operator.get(LIST + first.context["cl"].next_page)
    assert listed(first) + listed(second) == in_order
    assert listed(operator.get(LIST + second.context["cl"].previous_page)) == in_order[:50]


def test_list_filters_by_event_type_where_an_index_holds_it(operator):
    handled, _ = make_row(Status.CONSUMED), make_row()
    assert listed(operator.get(LIST, {"status": "consumed", "event_type": EVENT_TYPE})) == [handled.pk]
    assert listed(operator.get(LIST, {"status": "consumed", "event_type": "tasks.task.completed"})) == []
    assert filters_of(operator.get(LIST)) == ["state"]
    assert filters_of(operator.get(LIST, {"status": "waiting"})) == ["state"]
    assert filters_of(operator.get(LIST, {"status": "dead"})) == ["state"]
    assert filters_of(operator.get(LIST, {"status": "consumed"})) == ["state", "event type"]


@pytest.mark.parametrize("lookup", ["payload__contains", "request_id", "last_error__contains", "topic"])
def test_list_refuses_to_filter_by_what_no_filter_names(operator, lookup):
    make_row()
    assert operator.get(LIST, {lookup: "private"}).status_code == 400


def test_search_finds_what_one_request_wrote(operator):
    rows = [make_row(request_id="req-1").pk for _ in range(60)]
    make_row(request_id="req-10")
    first = operator.get(LIST, {"q": "req-1"})
    assert listed(first) + listed(operator.get(LIST + first.context["cl"].next_page)) == rows[::-1]


def test_search_finds_by_event_id_row_id_and_key_exactly(operator):
    row, twin, _other = make_row(key="k-1"), make_row(Status.CONSUMED, key="k-1"), make_row(key="k-10")
    assert listed(operator.get(LIST, {"q": row.event_id})) == [row.pk]
    assert listed(operator.get(LIST, {"q": str(row.pk)})) == [row.pk]
    assert listed(operator.get(LIST, {"q": "k-1"})) == [twin.pk, row.pk]
    assert listed(operator.get(LIST, {"q": "k-1", "status": "pending"})) == [row.pk]
    assert listed(operator.get(LIST, {"q": "k-"})) == []


def test_search_of_a_long_key_pages_through_all_states_in_order(operator):
    states = [Status.CONSUMED, Status.PENDING, Status.DEAD]
    rows = [make_row(states[n % 3], key="hot").pk for n in range(110)]
    first = operator.get(LIST, {"q": "hot"})
    second = operator.get(LIST + first.context["cl"].next_page)
    third = operator.get(LIST + second.context["cl"].next_page)
    assert listed(first) + listed(second) + listed(third) == rows[::-1]
    assert listed(operator.get(LIST + third.context["cl"].previous_page)) == listed(second)


def test_page_hides_the_payload_without_the_permission(operator):
    row = make_row(Status.DEAD, last_error="HandlerFailed: why\nsecond line")
    text = operator.get(page_of(row)).content.decode()
    assert "private words" not in text
    assert "outbox.view_payload" in text
    may_read = operator_client("outbox.view_outboxmessage", "outbox.view_payload", username="reader")
    text = may_read.get(page_of(row)).content.decode()
    assert "private words" in text
    assert "second line" in text


def test_an_error_is_told_by_its_kind_alone_to_whoever_may_not_read_payloads():
    """The words of an error often quote the data that it was about."""
    row = make_row(Status.DEAD, key="k", last_error="KeyError: 'private words'\nsecond line")
    KeyHold.objects.create(message_key="k", head_id=row.pk, since=utc_now())
    parked = make_row(Status.DEAD, key="k", last_error="KeyError: 'private words'")
    Attempt.objects.create(
        message_id=row.pk, step="handle", number=1, at=utc_now(), seconds=1, by="c", error="KeyError: 'private words'"
    )
    dead, requeue = "/admin/outbox/deadletter/", "outbox.requeue_outboxmessage"
    pages = ["/admin/", LIST, dead, f"{LIST}key/?key=k", "/admin/outbox/keyhold/", page_of(row), page_of(parked)]
    pages += [f"{dead}{row.pk}/change/", f"{dead}requeue/?ids={row.pk}"]
    rights = ("outbox.view_outboxmessage", requeue)
    masked = operator_client(*rights)
    for page in pages:
        text = masked.get(page).content.decode()
        assert "KeyError" in text, page
        assert "private words" not in text, page
    reader = operator_client(*rights, "outbox.view_payload", username="reader")
    for page in (LIST, dead, f"{LIST}key/?key=k", page_of(parked), f"{dead}requeue/?ids={row.pk}"):
        assert "private words" in reader.get(page).content.decode(), page
    for page in (dead, f"{dead}requeue/"):
        assert masked.get(page, {"error": "KeyError: 'p"}).status_code == 403
        assert masked.get(page, {"error": "KeyError"}).status_code == 200
        assert reader.get(page, {"error": "KeyError: 'p"}).status_code == 200


def test_page_links_the_key_to_its_rows_and_to_what_it_names(operator):
    row = make_row(key="6f0a")
    text = operator.get(page_of(row)).content.decode()
    assert f"{LIST}key/?key=6f0a" in text
    assert "/admin/chat/agentchat/by-chat-id/6f0a/" in text


def test_page_shows_ten_neighbours_on_either_side_in_order(operator):
    rows = [make_row(Status.CONSUMED if n % 2 else Status.DEAD, key="k") for n in range(25)]
    make_row(key="another")
    lines = operator.get(page_of(rows[12])).context["neighbours"].lines
    assert [f">#{row.pk}<" in line.cells[0] for row, line in zip(rows[2:23], lines, strict=True)] == [True] * 21
    assert [line.is_current for line in lines] == [False] * 10 + [True] + [False] * 10


def test_page_offers_no_change(operator):
    row = make_row()
    assert operator.post(page_of(row), {"status": "consumed"}).status_code == 403
    assert operator.get(f"{LIST}add/").status_code == 403
    assert operator.get(f"{LIST}{row.pk}/delete/").status_code == 403


def test_list_is_closed_without_the_permission():
    client = operator_client()
    assert client.get(LIST).status_code == 403
    assert client.get(page_of(make_row())).status_code == 403


def test_list_key_ids_returns_the_nearest_rows():
    ids = [make_row(Status.PENDING if n % 2 else Status.CONSUMED, key="k").pk for n in range(9)]
    assert list_key_ids(key="k", statuses=Status.values, limit=3) == ids[:-4:-1]
    assert list_key_ids(key="k", statuses=Status.values, limit=2, newer_than=ids[3]) == ids[4:6]
    assert list_key_ids(key="k", statuses=Status.values, limit=2, older_than=ids[3]) == [ids[2], ids[1]]
    assert list_key_ids(key="k", statuses=["dead"], limit=2) == []


def test_list_neighbours_leaves_other_keys_out():
    row = make_row(key="k")
    make_row(key="K")
    assert [neighbour.pk for neighbour in list_neighbours(key="k", message_id=row.pk, limit=10)] == [row.pk]
