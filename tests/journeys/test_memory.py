"""What a student lets the assistant remember, through the front door, with every process running."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

ITEM = {"memory_type": "constraint", "title": "Mornings ☕", "content": "Never before ten, 早上不行"}


def write(person, method, path, body=None):
    answer = person.call(method, path, body, X_Idempotency_Key=str(uuid4()))
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def shown(person, query=""):
    return [item["title"] for item in person.data(f"/memory/items{query}")]


def test_a_student_adds_changes_forgets_and_brings_back_what_is_remembered(stack, alice, bob):
    item = write(alice, "POST", "/memory/items", ITEM | {"ttl_at": "2036-05-01T12:00"})
    path = f"/memory/items/{item['id']}"
    changes = [{"title": "Mornings"}, {"content": "Never before eleven"}, {"clear_ttl": True}, {"importance": 0}]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda change: write(alice, "PATCH", path, change), changes))

    changed = alice.data(path)
    assert (changed["title"], changed["content"], changed["importance"]) == ("Mornings", "Never before eleven", 0)
    assert "ttl_at" not in changed
    assert bob.call("GET", path).json()["status"] == "40055"
    assert shown(bob) == []
    for _ in range(2):
        assert write(alice, "DELETE", path, {"reason": "I sleep less now"})["status"] == "deleted"
    assert (shown(alice), shown(alice, "?statuses=deleted")) == ([], ["Mornings"])
    assert write(alice, "POST", f"{path}/restore")["status"] == "active"
    assert shown(alice) == ["Mornings"]
    write(alice, "PATCH", "/memory/settings", {"sensitive_memory_enabled": True})
    assert alice.data("/memory/settings")["sensitive_memory_enabled"] is True
    assert bob.data("/memory/settings")["sensitive_memory_enabled"] is False
    lines = stack.parts.rows("SELECT action FROM memory_audit_logs WHERE item_id = ? ORDER BY id", item["id"])
    assert [line["action"] for line in lines] == ["create", *["update"] * 4, "delete", "restore"]
