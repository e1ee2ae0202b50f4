"""A student's tasks through the front door, with every process running."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from tests.stack.waiting import wait_until

# A consumer in another process has to write; the relay's pass and the consumer's poll lie before it.
PATIENCE_SECONDS = 30


def write(person, method, path, body=None, key=None):
    answer = person.call(method, path, body, X_Idempotency_Key=key or str(uuid4()))
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def add(person, title, **values):
    return write(person, "POST", "/task/create", {"title": title, "priority_group": 3, **values})["id"]


def shown(person, query=""):
    answer = person.call("GET", f"/task/get{query}")
    assert answer.status_code == 200, answer.text
    return answer.json().get("data", [])


def titles(person, query=""):
    return [task["title"] for task in shown(person, query)]


def test_a_student_plans_finishes_and_changes_their_mind(alice):
    assert alice.call("GET", "/task/get").json()["status"] == "10001"
    essay, reading = add(alice, "Essay 📚"), add(alice, "Reading", deadline_at="2036-05-01T12:00")
    assert titles(alice) == ["Essay 📚", "Reading"]

    write(alice, "PUT", "/task/update", {"task_id": reading, "title": "Chapter 3", "priority_group": 1})
    assert titles(alice, "?quadrant=1") == ["Chapter 3"]
    write(alice, "PUT", "/task/complete", {"task_id": essay})
    assert titles(alice, "?completed=false") == ["Chapter 3"]
    write(alice, "PUT", "/task/undo-complete", {"task_id": essay})
    write(alice, "DELETE", f"/task/delete?task_id={essay}")
    assert titles(alice) == ["Chapter 3"]
    write(alice, "POST", "/task/restore", {"task_id": essay})
    assert titles(alice) == ["Essay 📚", "Chapter 3"]


def test_two_devices_complete_a_task_and_get_the_same_answer(alice):
    task_id = add(alice, "Both of us")

    with ThreadPoolExecutor(8) as pool:
        body = {"task_id": task_id}
        answers = list(pool.map(lambda _n: write(alice, "PUT", "/task/complete", body), range(8)))

    assert sorted(answer.pop("already_completed") for answer in answers) == [False] + [True] * 7
    assert all(answer == answers[0] for answer in answers)


def test_a_repeated_request_adds_one_task(alice):
    key = str(uuid4())
    body = {"title": "Once", "priority_group": 1}

    first, second = (write(alice, "POST", "/task/create", body, key) for _ in range(2))

    assert first == second
    assert titles(alice) == ["Once"]


def test_a_task_past_its_threshold_is_urgent_at_once_and_stored_by_the_consumer(stack, alice):
    passed = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    task_id = add(alice, "Exam", priority_group=2, urgency_threshold_at=passed)
    hard = add(alice, "Tidy up", priority_group=4, urgency_threshold_at=passed)

    assert {task["id"]: task["priority_group"] for task in shown(alice)} == {task_id: 1, hard: 3}

    def stored():
        rows = stack.rows("SELECT id, priority FROM tasks WHERE user_id = ?", alice.user_id)
        return {row["id"]: row["priority"] for row in rows}

    wait_until(lambda: stored() == {task_id: 1, hard: 3}, PATIENCE_SECONDS, "the promotion")
    assert {task["id"]: task["priority_group"] for task in shown(alice)} == {task_id: 1, hard: 3}
    write(alice, "PUT", "/task/update", {"task_id": task_id, "urgency_threshold_at": None, "title": "Exam!"})
    assert titles(alice) == ["Exam!", "Tidy up"]

    def unhandled():
        key = f"user:{alice.user_id}"
        return stack.rows("SELECT id FROM agent_outbox_messages WHERE message_key = ? AND status <> 'consumed'", key)

    wait_until(lambda: not unhandled(), PATIENCE_SECONDS, "the end of all events")


def test_a_task_class_keeps_its_items_through_changes_from_two_devices(alice):
    body = {
        "name": "线性代数",
        "mode": "manual",
        "config": {"total_slots": 8},
        "items": [{"order": number, "content": f"Item {number}"} for number in range(1, 7)],
    }
    added = write(alice, "POST", "/task-class/add", body)
    ids = [item["id"] for item in added["items"]]

    def shuffle(number):
        order = ids[number % 6 :] + ids[: number % 6]
        items = [{"id": pk, "order": place, "content": f"Item {pk}"} for place, pk in enumerate(order, start=1)]
        return write(alice, "PUT", "/task-class/update", {**body, "task_class_id": added["id"], "items": items})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(shuffle, range(20)))

    items = alice.data(f"/task-class/get?task_class_id={added['id']}")["items"]
    assert [item["order"] for item in items] == [1, 2, 3, 4, 5, 6]
    assert {item["id"] for item in items} == set(ids)
    write(alice, "DELETE", f"/task-class/delete-item?task_item_id={ids[2]}")
    left = alice.data(f"/task-class/get?task_class_id={added['id']}")["items"]
    assert [item["order"] for item in left] == [1, 2, 3, 4, 5]
    write(alice, "DELETE", f"/task-class/delete-class?task_class_id={added['id']}")
    assert alice.data("/task-class/list") == {"task_classes": []}


def test_bob_finds_nothing_of_alices(alice, bob):
    task_id = add(alice, "Alice's secret")
    one = {"task_id": task_id}

    for method, path, body in (
        ("PUT", "/task/update", {**one, "title": "Bob was here"}),
        ("PUT", "/task/complete", one),
        ("PUT", "/task/undo-complete", one),
        ("POST", "/task/restore", one),
    ):
        answer = bob.call(method, path, body, X_Idempotency_Key=str(uuid4()))
        assert (answer.status_code, answer.json()["status"]) == (404, "40050")
    assert (
        bob.call("DELETE", f"/task/delete?task_id={task_id}", X_Idempotency_Key=str(uuid4())).json()["status"]
        == "10003"
    )
    assert shown(bob) == []
    assert titles(alice) == ["Alice's secret"]
