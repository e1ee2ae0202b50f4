"""The task-class routes: fields, codes, and that Bob sees nothing."""

import pytest

from tasks.models import TaskClass, TaskItem
from tests.task_rows import add_class, key

pytestmark = pytest.mark.django_db
API = "/api/v1/task-class"
BODY = {
    "name": "线性代数",
    "mode": "auto",
    "start_date": "2026-03-02",
    "end_date": "2026-06-30",
    "subject_type": "quantitative",
    "difficulty_level": "high",
    "cognitive_intensity": "medium",
    "config": {
        "total_slots": 12,
        "allow_filler_course": False,
        "strategy": "rapid",
        "excluded_slots": [6, 1],
        "excluded_days_of_week": [7],
    },
    "items": [{"order": 1, "content": "Matrices"}, {"order": 2, "content": "Determinants"}],
}


def send(client, method, path, body=None):
    return getattr(client, method)(f"{API}/{path}", body, format="json", headers=key())


def code(answer):
    return answer.status_code, answer.json()["status"]


def changed(**values):
    return BODY | values


def test_add_get_and_list_show_the_class_as_it_was_sent(alice_client):
    added = send(alice_client, "post", "add", BODY).json()["data"]

    shown = alice_client.get(f"{API}/get", {"task_class_id": added["id"]}).json()["data"]
    assert shown == added
    assert {name: added[name] for name in BODY if name not in {"items", "config"}} == {
        name: BODY[name] for name in BODY if name not in {"items", "config"}
    }
    assert added["config"] == BODY["config"] | {"excluded_slots": [1, 6]}
    assert [(item["order"], item["content"], item["embedded_time"], item["status"]) for item in added["items"]] == [
        (1, "Matrices", None, 1),
        (2, "Determinants", None, 1),
    ]
    (brief,) = alice_client.get(f"{API}/list").json()["data"]["task_classes"]
    assert brief == {
        "id": added["id"],
        "name": "线性代数",
        "mode": "auto",
        "strategy": "rapid",
        "start_date": "2026-03-02",
        "end_date": "2026-06-30",
        "total_slots": 12,
        "subject_type": "quantitative",
        "difficulty_level": "high",
        "cognitive_intensity": "medium",
    }


def test_list_is_empty_without_classes(alice_client):
    assert alice_client.get(f"{API}/list").json()["data"] == {"task_classes": []}


def test_what_may_be_left_out_has_defaults(alice_client):
    body = {"name": "Reading", "mode": "manual", "config": {"total_slots": 1}, "items": BODY["items"]}

    added = send(alice_client, "post", "add", body).json()["data"]

    assert (added["start_date"], added["end_date"], added["subject_type"]) == (None, None, "")
    assert added["config"] == {
        "total_slots": 1,
        "allow_filler_course": True,
        "strategy": "steady",
        "excluded_slots": [],
        "excluded_days_of_week": [],
    }


def test_update_keeps_ids_and_returns_the_class(alice_client):
    added = send(alice_client, "post", "add", BODY).json()["data"]
    one, two = (item["id"] for item in added["items"])
    items = [{"order": 5, "content": "New"}, {"id": two, "order": 1, "content": "Determinants!"}]

    answer = send(alice_client, "put", "update", changed(task_class_id=added["id"], name="Algebra", items=items))

    view = answer.json()["data"]
    assert (view["name"], [(item["order"], item["content"]) for item in view["items"]]) == (
        "Algebra",
        [(1, "Determinants!"), (2, "New")],
    )
    assert view["items"][0]["id"] == two
    assert not TaskItem.objects.filter(pk=one).exists()


@pytest.mark.parametrize(
    ("values", "status", "field"),
    [
        ({"name": ""}, "40004", "name"),
        ({"name": "x" * 256}, "40006", "name"),
        ({"mode": "fast"}, "40005", "mode"),
        ({"mode": None}, "40004", "mode"),
        ({"start_date": None}, "40044", "start_date"),
        ({"end_date": "2026-03-01"}, "40045", "end_date"),
        ({"start_date": "soon"}, "40005", "start_date"),
        ({"difficulty_level": "brutal"}, "40005", "difficulty_level"),
        ({"config": {}}, "40004", "config.total_slots"),
        ({"config": {"total_slots": 0}}, "40005", "config.total_slots"),
        ({"config": {"total_slots": 1, "excluded_slots": [7]}}, "40005", "config.excluded_slots.0"),
        ({"config": {"total_slots": 1, "excluded_days_of_week": [0]}}, "40005", "config.excluded_days_of_week.0"),
        ({"items": []}, "40004", "items"),
        ({"items": [{"order": 0, "content": "x"}]}, "40005", "items.0.order"),
        ({"items": [{"order": 1, "content": ""}]}, "40004", "items.0.content"),
        ({"items": [{"order": 1, "content": "a"}, {"order": 1, "content": "b"}]}, "40005", "items"),
        ({"items": [{"order": 1, "content": "a", "embedded_time": {"week": 26}}]}, None, None),
        ({"colour": "red"}, "40005", "colour"),
    ],
)
def test_add_names_the_field_and_the_bound(alice_client, values, status, field):
    answer = send(alice_client, "post", "add", changed(**values))

    assert answer.status_code == 400, answer.json()
    if field:
        assert (answer.json()["status"], set(answer.json()["fields"])) == (status, {field}), answer.json()
        assert len(answer.json()["fields"][field]) > 10
    assert not TaskClass.objects.exists()


def test_refusals_of_the_domain_speak_the_readers_language_too(alice_client):
    answer = alice_client.post(
        f"{API}/add", changed(items=[]), format="json", headers={**key(), "Accept-Language": "zh-hans"}
    )

    assert answer["Content-Language"] == "zh-hans"


def test_delete_item_and_class(alice_client):
    added = send(alice_client, "post", "add", BODY).json()["data"]
    item_id = added["items"][0]["id"]

    assert send(alice_client, "delete", f"delete-item?task_item_id={item_id}").json()["data"] == {
        "task_item_id": item_id
    }
    assert code(send(alice_client, "delete", f"delete-item?task_item_id={item_id}")) == (404, "40036")
    left = alice_client.get(f"{API}/get", {"task_class_id": added["id"]}).json()["data"]["items"]
    assert [(item["order"], item["content"]) for item in left] == [(1, "Determinants")]
    assert send(alice_client, "delete", f"delete-class?task_class_id={added['id']}").json()["data"] == {
        "task_class_id": added["id"]
    }
    assert code(send(alice_client, "delete", f"delete-class?task_class_id={added['id']}")) == (404, "40040")
    assert code(alice_client.get(f"{API}/get", {"task_class_id": added["id"]})) == (404, "40020")


@pytest.mark.parametrize(
    ("method", "path"),
    [("post", "add"), ("put", "update"), ("delete", "delete-item"), ("delete", "delete-class")],
)
def test_writes_need_a_key_and_a_token(alice_client, anonymous, method, path):
    assert code(getattr(alice_client, method)(f"{API}/{path}", BODY, format="json")) == (400, "40037")
    assert code(getattr(anonymous, method)(f"{API}/{path}", BODY, format="json", headers=key())) == (401, "40009")


def test_bob_sees_and_changes_nothing_of_alices(alice, bob_client):
    view = add_class(alice, "Secret")
    before = (list(TaskClass.objects.values()), list(TaskItem.objects.values()))
    item_id = view.items[0].id

    def asked(class_id, item_id):
        return [
            bob_client.get(f"{API}/get", {"task_class_id": class_id}),
            send(bob_client, "put", "update", changed(task_class_id=class_id)),
            send(bob_client, "delete", f"delete-item?task_item_id={item_id}"),
            send(bob_client, "delete", f"delete-class?task_class_id={class_id}"),
        ]

    answers, of_unknown = asked(view.id, item_id), asked(view.id + 1000, item_id + 1000)
    assert [code(answer) for answer in answers] == [(404, "40020"), (404, "40020"), (404, "40036"), (404, "40040")]
    for answer, unknown in zip(answers, of_unknown, strict=True):
        assert {**answer.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    assert bob_client.get(f"{API}/list").json()["data"] == {"task_classes": []}
    assert (list(TaskClass.objects.values()), list(TaskItem.objects.values())) == before
