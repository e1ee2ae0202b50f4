"""The task routes: fields, codes, idempotent meanings, zones, and that Bob sees nothing."""

from datetime import timedelta

import pytest
from django.core.cache import cache

from smartflow.kernel.clock import utc_now
from tasks import operations
from tasks.models import Task
from tests.task_rows import add_task, key

pytestmark = pytest.mark.django_db
API = "/api/v1/task"
SHAPE = {
    *("id", "user_id", "title", "priority_group", "estimated_sections", "status", "is_completed"),
    *("deadline", "deadline_at", "completed_at", "created_at"),
}


@pytest.fixture(autouse=True)
def empty_cache():
    cache.clear()


def send(client, method, path, body=None):
    """Send a write with a key of its own."""
    return getattr(client, method)(f"{API}/{path}", body, format="json", headers=key())


def create(client, **values):
    answer = send(client, "post", "create", {"title": "Homework", "priority_group": 3, **values})
    assert answer.status_code == 200, answer.json()
    return answer.json()["data"]


def update(client, task_id, **values):
    return send(client, "put", "update", {"task_id": task_id, **values})


def listed(client, **query):
    answer = client.get(f"{API}/get", query)
    assert answer.status_code == 200, answer.json()
    return answer.json().get("data", []), answer.get("X-Next-Cursor", "")


def code(answer):
    return answer.status_code, answer.json()["status"]


def test_create_answers_the_task(alice_client, alice):
    task = create(
        alice_client, title=" 作业 ", priority_group=2, estimated_sections=9, deadline_at="2036-03-05T15:59:00+08:00"
    )

    assert set(task) == SHAPE | {"urgency_threshold_at"}
    assert (task["user_id"], task["title"], task["priority_group"], task["estimated_sections"]) == (
        alice.pk,
        "作业",
        2,
        4,
    )
    assert (task["status"], task["is_completed"], task["completed_at"]) == ("incomplete", False, None)
    assert (task["deadline"], task["deadline_at"]) == ("2036-03-05 15:59:00", "2036-03-05T15:59:00+08:00")
    assert task["urgency_threshold_at"] == "2036-03-04T15:59:00+08:00"
    assert listed(alice_client) == ([task], "")


def test_view_leaves_the_threshold_out_when_there_is_none(alice_client):
    task = create(alice_client)

    assert set(task) == SHAPE
    assert (task["deadline"], task["deadline_at"]) == ("", None)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("2036-07-01T12:00", "2036-07-01T12:00:00+02:00"),
        ("2036-07-01T12:00:00Z", "2036-07-01T14:00:00+02:00"),
        ("2036-07-01T12:00:00.123456-05:00", "2036-07-01T19:00:00.123456+02:00"),
    ],
)
def test_moments_without_a_zone_are_in_the_users(alice, client_of, given, shown):
    alice.time_zone = "Europe/Berlin"
    alice.save()

    assert create(client_of(alice), deadline_at=given)["deadline_at"] == shown


@pytest.mark.parametrize(
    ("values", "status", "field"),
    [
        ({"title": ""}, "40004", "title"),
        ({"title": "  "}, "40004", "title"),
        ({"title": None}, "40004", "title"),
        ({"title": "x" * 256}, "40006", "title"),
        ({"title": ["x"]}, "40005", "title"),
        ({"priority_group": 5}, "40018", "priority_group"),
        ({"priority_group": 0}, "40018", "priority_group"),
        ({"priority_group": None}, "40004", "priority_group"),
        ({"priority_group": "high"}, "40005", "priority_group"),
        ({"deadline_at": "tomorrow"}, "40005", "deadline_at"),
        ({"deadline_at": "0001-01-01T00:00:00+14:00"}, "40005", "deadline_at"),
        ({"deadline_at": "9999-12-31T23:59:59-12:00"}, "40005", "deadline_at"),
        ({"deadline_at": 5}, "40005", "deadline_at"),
        ({"urgency_threshold_at": "x"}, "40005", "urgency_threshold_at"),
        ({"estimated_sections": "x"}, "40005", "estimated_sections"),
        ({"user_id": 1}, "40005", "user_id"),
        ({"is_completed": True}, "40005", "is_completed"),
    ],
)
def test_create_names_the_field_that_is_wrong(alice_client, values, status, field):
    answer = send(alice_client, "post", "create", {"title": "Homework", "priority_group": 3, **values})

    assert code(answer) == (400, status), answer.json()
    assert set(answer.json()["fields"]) == {field}
    assert not Task.objects.exists()


@pytest.mark.parametrize("name", ["title", "priority_group"])
def test_create_needs_title_and_priority(alice_client, name):
    body = {"title": "Homework", "priority_group": 3}
    del body[name]

    answer = send(alice_client, "post", "create", body)

    assert (code(answer), set(answer.json()["fields"])) == ((400, "40004"), {name})


def test_a_clock_time_that_the_zone_skips_is_refused(alice, client_of):
    alice.time_zone = "Europe/Berlin"
    alice.save()

    answer = send(
        client_of(alice), "post", "create", {"title": "x", "priority_group": 1, "deadline_at": "2036-03-30T02:30"}
    )

    assert code(answer) == (400, "40005")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "create"),
        ("put", "update"),
        ("put", "complete"),
        ("put", "undo-complete"),
        ("delete", "delete"),
        ("post", "restore"),
    ],
)
def test_writes_need_a_key_and_a_token(alice_client, anonymous, method, path):
    assert code(getattr(alice_client, method)(f"{API}/{path}", {}, format="json")) == (400, "40037")
    assert code(getattr(anonymous, method)(f"{API}/{path}", {}, format="json", headers=key())) == (401, "40009")


def test_create_with_the_same_key_adds_one_task(alice_client):
    same = key()
    body = {"title": "Once", "priority_group": 1}

    first, second = (alice_client.post(f"{API}/create", body, format="json", headers=same) for _ in range(2))

    assert first.json()["data"] == second.json()["data"]
    assert Task.objects.count() == 1


def test_list_answers_10001_when_there_is_no_task_and_an_empty_page_when_asked_for_one(alice_client):
    answer = alice_client.get(f"{API}/get")

    assert code(answer) == (200, "10001")
    assert "data" not in answer.json()
    assert listed(alice_client, completed="false") == ([], "")


def test_list_filters_sorts_and_pages(alice_client):
    for number, deadline in enumerate(["2036-03-03", "2036-03-01", None, "2036-03-02"]):
        at = f"{deadline}T08:00:00Z" if deadline else None
        create(
            alice_client, title=f"Task {number}", priority_group=number + 1, deadline_at=at, urgency_threshold_at=None
        )

    first, cursor = listed(alice_client, sort="deadline", limit="2")
    second, end = listed(alice_client, sort="deadline", limit="2", cursor=cursor)
    assert [task["title"] for task in first + second] == ["Task 1", "Task 3", "Task 0", "Task 2"]
    assert (bool(cursor), end) == (True, "")
    window = {"deadline_after": "2036-03-01T08:00:00Z", "deadline_before": "2036-03-03T08:00:00Z"}
    assert [task["title"] for task in listed(alice_client, **window)[0]] == ["Task 1", "Task 3"]
    assert [task["title"] for task in listed(alice_client, quadrant="3")[0]] == ["Task 2"]
    assert [task["title"] for task in listed(alice_client, keyword="TASK 2")[0]] == ["Task 2"]
    assert [task["title"] for task in listed(alice_client, sort="-created", limit="1")[0]] == ["Task 3"]


@pytest.mark.parametrize(
    "query",
    [
        {"quadrant": "5"},
        {"limit": "0"},
        {"limit": "201"},
        {"sort": "title"},
        {"cursor": "x"},
        {"completed": "perhaps"},
        {"deadline_after": "x"},
        {"deadline_after": "2036-03-02T00:00Z", "deadline_before": "2036-03-01T00:00Z"},
        {"page": "1"},
        {"keyword": "x" * 256},
    ],
)
def test_list_refuses_wrong_queries(alice_client, query):
    answer = alice_client.get(f"{API}/get", query)

    assert answer.status_code == 400
    assert answer.json()["status"] in {"40005", "40006"}
    assert answer.json()["fields"]


def test_list_shows_a_task_past_its_threshold_as_urgent(alice_client, alice):
    passed = utc_now() - timedelta(minutes=1)
    add_task(alice, priority=2, urgency_threshold_at=passed)

    assert [task["priority_group"] for task in listed(alice_client)[0]] == [1]
    assert [task["priority_group"] for task in listed(alice_client, quadrant="1")[0]] == [1]
    assert Task.objects.get().priority == 2


def test_update_changes_clears_and_leaves(alice_client):
    task = create(alice_client, priority_group=2, deadline_at="2036-03-05T15:59:00Z", estimated_sections=3)

    answer = update(alice_client, task["id"], title="Renamed", deadline_at=None, estimated_sections=2)

    changed = answer.json()["data"]
    assert (changed["title"], changed["deadline_at"], changed["deadline"]) == ("Renamed", None, "")
    assert (changed["priority_group"], changed["estimated_sections"]) == (2, 2)
    assert changed["urgency_threshold_at"] == task["urgency_threshold_at"]


@pytest.mark.parametrize(
    ("values", "status"),
    [({}, "40063"), ({"title": None}, "40004"), ({"priority_group": 7}, "40018"), ({"done": True}, "40005")],
)
def test_update_refuses(alice_client, values, status):
    task = create(alice_client)

    assert code(update(alice_client, task["id"], **values)) == (400, status)


def test_complete_undo_delete_and_restore(alice_client):
    task_id = create(alice_client)["id"]
    one = {"task_id": task_id}

    first = send(alice_client, "put", "complete", one).json()["data"]
    again = send(alice_client, "put", "complete", one).json()["data"]
    assert {**first, "already_completed": True} == again
    assert (first["already_completed"], first["status"], first["is_completed"]) == (False, "completed", True)

    undone = send(alice_client, "put", "undo-complete", one)
    assert undone.json()["data"] == {"task_id": task_id, "is_completed": False, "status": "uncompleted"}
    assert code(send(alice_client, "put", "undo-complete", one)) == (409, "40052")

    assert send(alice_client, "delete", f"delete?task_id={task_id}").json()["data"] == one
    assert code(send(alice_client, "delete", "delete", one)) == (200, "10003")
    assert code(send(alice_client, "put", "complete", one)) == (404, "40050")
    assert send(alice_client, "post", "restore", one).json()["data"]["id"] == task_id
    assert [task["id"] for task in listed(alice_client)[0]] == [task_id]


def test_batch_status_keeps_the_order(alice_client, alice, bob):
    one, two, hers = add_task(alice), add_task(alice), add_task(bob)
    operations.complete_task(user_id=alice.pk, task_id=two, now=utc_now())

    answer = alice_client.post(f"{API}/batch-status", {"ids": [two, hers, one, two, 10**15]}, format="json")

    assert answer.json()["data"] == {"items": [{"id": two, "is_completed": True}, {"id": one, "is_completed": False}]}


@pytest.mark.parametrize("ids", [[], [0], [-1], ["x"], list(range(1, 102)), None, 5, [2**63]])
def test_batch_status_refuses_wrong_ids(alice_client, ids):
    answer = alice_client.post(f"{API}/batch-status", {"ids": ids}, format="json")

    assert answer.status_code == 400
    assert answer.json()["status"] in {"40004", "40005", "40006"}


def test_bob_sees_and_changes_nothing_of_alices(alice, bob_client):
    task_id = add_task(alice, "Alice's secret")
    before = list(Task.objects.values())
    one = {"task_id": task_id}
    unknown = {"task_id": task_id + 1000}

    for method, path, extra in (
        ("put", "update", {"title": "Bob was here"}),
        ("put", "complete", {}),
        ("put", "undo-complete", {}),
        ("delete", "delete", {}),
        ("post", "restore", {}),
    ):
        answer = send(bob_client, method, path, one | extra)
        of_unknown = send(bob_client, method, path, unknown | extra)
        assert {**answer.json(), "request_id": ""} == {**of_unknown.json(), "request_id": ""}
        assert code(answer) == ((200, "10003") if path == "delete" else (404, "40050"))
        assert "secret" not in answer.content.decode()
    assert bob_client.get(f"{API}/get").json()["status"] == "10001"
    assert bob_client.post(f"{API}/batch-status", {"ids": [task_id]}, format="json").json()["data"] == {"items": []}
    assert list(Task.objects.values()) == before
