"""The memory routes: fields, codes, null apart from absent, idempotent meanings, and that Bob sees nothing."""

import pytest

from chat.memory_models import MemoryAuditLog, MemoryItem
from smartflow.kernel.ids import new_uuid
from tests.admin_rows import make_chat
from tests.memory_rows import add_archived_memory, add_deleted_memory, add_memory
from tests.task_rows import key

pytestmark = pytest.mark.django_db
API = "/api/v1/memory"
ITEMS = f"{API}/items"
GIVEN = {"memory_type": "preference", "title": "Mornings", "content": "Never before ten"}
SHAPE = {
    *("id", "user_id", "memory_type", "title", "content", "content_hash", "confidence", "importance"),
    *("sensitivity_level", "is_explicit", "status", "created_at", "updated_at"),
}


def send(client, method, url, body=None):
    """Send a write with a key of its own."""
    return getattr(client, method)(url, body, format="json", headers=key())


def create(client, **values):
    answer = send(client, "post", ITEMS, GIVEN | values)
    assert answer.status_code == 200, answer.json()
    return answer.json()["data"]


def patch(client, item_id, **values):
    return send(client, "patch", f"{ITEMS}/{item_id}", values)


def listed(client, **query):
    answer = client.get(ITEMS, query)
    assert answer.status_code == 200, answer.json()
    return [item["id"] for item in answer.json()["data"]]


def code(answer):
    return answer.status_code, answer.json()["status"]


def test_create_answers_the_item_with_its_defaults(alice_client, alice):
    item = create(alice_client)

    assert set(item) == SHAPE
    assert (item["user_id"], item["status"], item["is_explicit"]) == (alice.pk, "active", True)
    assert (item["confidence"], item["importance"], item["sensitivity_level"]) == (0.95, 0.9, 0)
    assert item["created_at"].endswith("+08:00")
    assert alice_client.get(f"{ITEMS}/{item['id']}").json()["data"] == item
    line = MemoryAuditLog.objects.get()
    assert (line.author_kind, line.author_id, line.reason) == ("user", alice.pk, "")


def test_create_takes_every_field(alice_client, alice):
    chat = make_chat(alice)
    values = {
        "memory_type": "fact",
        "title": "考试",
        "content": "七月三日 · π\n第二行",
        "assistant_id": "planner",
        "run_id": new_uuid(),
        "confidence": 0,
        "importance": 1,
        "sensitivity_level": 2,
        "is_explicit": False,
    }

    item = create(
        alice_client,
        **values,
        conversation_id=chat.chat_id.upper(),
        ttl_at="2036-07-01T12:00",
        reason="so she said",
    )

    assert set(item) == SHAPE | {"conversation_id", "assistant_id", "run_id", "ttl_at"}
    assert {name: item[name] for name in values} == values
    assert (item["conversation_id"], item["ttl_at"]) == (chat.chat_id, "2036-07-01T12:00:00+08:00")
    assert MemoryAuditLog.objects.get().reason == "so she said"


@pytest.mark.parametrize(
    ("values", "status", "field"),
    [
        ({"memory_type": "opinion"}, "40056", "memory_type"),
        ({"memory_type": ""}, "40056", "memory_type"),
        ({"memory_type": ["fact"]}, "40056", "memory_type"),
        ({"memory_type": None}, "40004", "memory_type"),
        ({"content": ""}, "40057", "content"),
        ({"content": " \n"}, "40057", "content"),
        ({"content": "red \x1b[31m"}, "40057", "content"),
        ({"content": None}, "40004", "content"),
        ({"content": "x" * 2001}, "40006", "content"),
        ({"content": "nul \0"}, "40005", "content"),
        ({"content": {"text": "x"}}, "40005", "content"),
        ({"title": ""}, "40004", "title"),
        ({"title": "x" * 256}, "40006", "title"),
        ({"title": "two\nlines"}, "40005", "title"),
        ({"confidence": 1.1}, "40005", "confidence"),
        ({"confidence": "nan"}, "40005", "confidence"),
        ({"confidence": None}, "40004", "confidence"),
        ({"importance": -1}, "40005", "importance"),
        ({"sensitivity_level": 3}, "40005", "sensitivity_level"),
        ({"sensitivity_level": 1.5}, "40005", "sensitivity_level"),
        ({"is_explicit": "perhaps"}, "40005", "is_explicit"),
        ({"ttl_at": "soon"}, "40005", "ttl_at"),
        ({"run_id": "x" * 65}, "40006", "run_id"),
        ({"assistant_id": "x" * 65}, "40006", "assistant_id"),
        ({"reason": "x" * 256}, "40006", "reason"),
        ({"reason": "two\nlines"}, "40005", "reason"),
        ({"conversation_id": "x"}, "40005", "conversation_id"),
        ({"status": "archived"}, "40005", "status"),
        ({"user_id": 1}, "40005", "user_id"),
        ({"clear_ttl": True}, "40005", "clear_ttl"),
    ],
)
def test_create_names_the_field_that_is_wrong(alice_client, values, status, field):
    answer = send(alice_client, "post", ITEMS, GIVEN | values)

    assert code(answer) == (400, status), answer.json()
    assert set(answer.json()["fields"]) == {field}
    assert not MemoryItem.objects.exists()
    assert not MemoryAuditLog.objects.exists()


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_create_needs_type_title_and_content(alice_client, name):
    answer = send(alice_client, "post", ITEMS, {n: value for n, value in GIVEN.items() if n != name})

    assert (code(answer), set(answer.json()["fields"])) == ((400, "40004"), {name})


@pytest.mark.parametrize("name", ["bounds", "content", "title"])
def test_errors_say_the_bound(alice_client, name):
    hint = {
        "bounds": ({"confidence": 2}, "confidence", "1"),
        "content": ({"content": "x" * 2001}, "content", "2000"),
        "title": ({"title": "x" * 256}, "title", "255"),
    }[name]

    assert hint[2] in send(alice_client, "post", ITEMS, GIVEN | hint[0]).json()["fields"][hint[1]]


def test_a_misspelt_field_is_refused_with_a_hint(alice_client):
    answer = send(alice_client, "post", ITEMS, GIVEN | {"importence": 1})

    assert code(answer) == (400, "40005")
    assert "importance" in answer.json()["fields"]["importence"]


def test_conversations_are_the_users_own(alice_client, alice, bob):
    item_id = create(alice_client)["id"]
    for other in (make_chat(bob).chat_id, new_uuid()):
        assert code(send(alice_client, "post", ITEMS, GIVEN | {"conversation_id": other})) == (404, "40401")
        assert code(patch(alice_client, item_id, conversation_id=other)) == (404, "40401")
    assert MemoryItem.objects.count() == MemoryAuditLog.objects.count() == 1


def test_patch_keeps_null_and_absent_apart(alice_client, alice):
    chat_id = make_chat(alice).chat_id
    item = create(
        alice_client, conversation_id=chat_id, run_id="r1", ttl_at="2036-07-01T12:00Z", confidence=0.5, importance=0.5
    )

    changed = patch(alice_client, item["id"], run_id=None, confidence=0, is_explicit=False).json()["data"]

    assert set(changed) == set(item) - {"run_id"}
    assert (changed["confidence"], changed["importance"], changed["is_explicit"]) == (0, 0.5, False)
    assert (changed["ttl_at"], changed["conversation_id"]) == (item["ttl_at"], chat_id)
    everywhere = patch(alice_client, item["id"], conversation_id=None, clear_ttl=True).json()["data"]
    assert set(everywhere) == SHAPE
    assert [line.action for line in MemoryAuditLog.objects.order_by("id")] == ["create", "update", "update"]


def test_patch_clears_a_ttl_by_null_too_and_a_false_clear_ttl_leaves_it(alice_client):
    item = create(alice_client, ttl_at="2036-07-01T12:00Z")

    assert "ttl_at" in patch(alice_client, item["id"], clear_ttl=False, title="Evenings").json()["data"]
    assert "ttl_at" not in patch(alice_client, item["id"], ttl_at=None).json()["data"]


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({}, "40063"),
        ({"reason": "no more"}, "40063"),
        ({"clear_ttl": False}, "40063"),
        ({"clear_ttl": True, "ttl_at": "2036-07-01T12:00Z"}, "40005"),
        ({"title": None}, "40004"),
        ({"content": None}, "40004"),
        ({"confidence": None}, "40004"),
        ({"is_explicit": None}, "40004"),
        ({"clear_ttl": None}, "40004"),
        ({"content": ""}, "40057"),
        ({"memory_type": "x"}, "40056"),
        ({"status": "active"}, "40005"),
    ],
)
def test_patch_refuses(alice_client, values, status):
    item = create(alice_client)

    assert code(patch(alice_client, item["id"], **values)) == (400, status)
    assert alice_client.get(f"{ITEMS}/{item['id']}").json()["data"] == item


def test_delete_repeat_restore(alice_client):
    url = f"{ITEMS}/{create(alice_client)['id']}"

    assert send(alice_client, "delete", url, {"reason": "wrong"}).json()["data"]["status"] == "deleted"
    assert send(alice_client, "delete", url).json()["data"]["status"] == "deleted"
    assert alice_client.get(url).json()["data"]["status"] == "deleted"
    assert code(send(alice_client, "patch", url, {"title": "Evenings"})) == (409, "40900")
    assert send(alice_client, "post", f"{url}/restore", {"reason": "right"}).json()["data"]["status"] == "active"
    assert send(alice_client, "post", f"{url}/restore").json()["data"]["status"] == "active"
    assert send(alice_client, "delete", f"{url}?reason=again").json()["data"]["status"] == "deleted"
    lines = MemoryAuditLog.objects.order_by("id").values_list("action", "reason")
    assert list(lines) == [("create", ""), ("delete", "wrong"), ("restore", "right"), ("delete", "again")]


def test_writes_with_the_same_key_have_one_effect(alice_client):
    same = key()
    first, second = (alice_client.post(ITEMS, GIVEN, format="json", headers=same) for _ in range(2))

    assert first.json()["data"] == second.json()["data"]
    assert MemoryItem.objects.count() == MemoryAuditLog.objects.count() == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/items"),
        ("patch", "/items/1"),
        ("delete", "/items/1"),
        ("post", "/items/1/restore"),
        ("patch", "/settings"),
    ],
)
def test_writes_need_a_key_and_a_token(alice_client, anonymous, method, path):
    assert code(getattr(alice_client, method)(f"{API}{path}", {}, format="json")) == (400, "40037")
    assert code(getattr(anonymous, method)(f"{API}{path}", {}, format="json", headers=key())) == (401, "40009")


@pytest.mark.parametrize("path", ["/items", "/items/1", "/settings"])
def test_reads_need_a_token(anonymous, path):
    assert code(anonymous.get(f"{API}{path}")) == (401, "40009")


@pytest.mark.parametrize("item_id", ["0", "-1", "x", "1.5", str(2**63), "%20"])
def test_an_id_that_is_no_positive_number_is_refused(alice_client, item_id):
    url = f"{ITEMS}/{item_id}"
    answers = [alice_client.get(url), *[send(alice_client, m, url, {"title": "x"}) for m in ("patch",)]]
    answers += [send(alice_client, "delete", url), send(alice_client, "post", f"{url}/restore")]

    for answer in answers:
        assert code(answer) in {(400, "40005"), (400, "40004")}, answer.json()
        assert set(answer.json()["fields"]) == {"id"}


def test_list_has_the_default_statuses_and_filters(alice_client, alice):
    one, two = make_chat(alice).chat_id, make_chat(alice).chat_id
    everywhere, here = add_memory(alice), add_memory(alice, conversation_id=one, memory_type="constraint")
    there = add_memory(alice, conversation_id=two, memory_type="fact")
    archived, deleted = add_archived_memory(alice), add_deleted_memory(alice)

    assert listed(alice_client) == [archived, there, here, everywhere]
    assert listed(alice_client, conversation_id=one) == [archived, here, everywhere]
    for name in ("status", "statuses"):
        assert listed(alice_client, **{name: "deleted, archived"}) == [deleted, archived]
        assert listed(alice_client, **{name: ""}) == [archived, there, here, everywhere]
    for name in ("memory_type", "memory_types"):
        assert listed(alice_client, **{name: "fact,constraint,fact"}) == [there, here]
    assert listed(alice_client, memory_type="fact", status="active", conversation_id=one) == []


def test_list_pages_by_the_cursor_of_the_header(alice_client, alice):
    ids = [add_memory(alice) for _ in range(25)]

    first = alice_client.get(ITEMS)
    second = alice_client.get(ITEMS, {"cursor": first["X-Next-Cursor"]})

    pages = [[item["id"] for item in page.json()["data"]] for page in (first, second)]
    assert pages == [ids[:4:-1], ids[4::-1]]
    assert "X-Next-Cursor" not in second
    assert len(listed(alice_client, limit=100)) == 25


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"limit": "0"}, "40005"),
        ({"limit": "101"}, "40005"),
        ({"limit": "x"}, "40005"),
        ({"statuses": "active,gone"}, "40005"),
        ({"status": "x"}, "40005"),
        ({"status": "active", "statuses": "deleted"}, "40005"),
        ({"memory_types": "fact,opinion"}, "40056"),
        ({"memory_type": "x"}, "40056"),
        ({"memory_type": "fact", "memory_types": "fact"}, "40005"),
        ({"conversation_id": "x"}, "40005"),
        ({"cursor": "x"}, "40005"),
        ({"cursor": "x" * 101}, "40006"),
        ({"user_id": "1"}, "40005"),
        ({"page": "1"}, "40005"),
    ],
)
def test_list_refuses_wrong_queries(alice_client, query, status):
    answer = alice_client.get(ITEMS, query)

    assert code(answer) == (400, status)
    assert answer.json()["fields"]


def test_switches_are_shown_and_turned_one_by_one(alice_client, bob_client):
    def turn(**values):
        return send(alice_client, "patch", f"{API}/settings", values)

    at_first = {"memory_enabled": True, "implicit_memory_enabled": True, "sensitive_memory_enabled": False}
    assert alice_client.get(f"{API}/settings").json()["data"] == at_first
    turned = turn(sensitive_memory_enabled=True, reason="fine with me").json()["data"]
    assert turned == at_first | {"sensitive_memory_enabled": True}
    assert turn(memory_enabled=False).json()["data"] == turned | {"memory_enabled": False}
    assert alice_client.get(f"{API}/settings").json()["data"] == turned | {"memory_enabled": False}
    assert bob_client.get(f"{API}/settings").json()["data"] == at_first
    assert [line.reason for line in MemoryAuditLog.objects.order_by("id")] == ["fine with me", ""]


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({}, "40063"),
        ({"reason": "x"}, "40063"),
        ({"memory_enabled": None}, "40004"),
        ({"memory_enabled": "perhaps"}, "40005"),
        ({"memory_enable": True}, "40005"),
    ],
)
def test_switches_refuse(alice_client, values, status):
    assert code(send(alice_client, "patch", f"{API}/settings", values)) == (400, status)
    assert not MemoryAuditLog.objects.exists()


def test_bob_sees_and_changes_nothing_of_alices(alice, bob_client):
    item_id = add_memory(alice, "Alice's secret")
    before = list(MemoryItem.objects.values()), list(MemoryAuditLog.objects.values())

    def all_ways(of):
        url = f"{ITEMS}/{of}"
        yield bob_client.get(url)
        yield send(bob_client, "patch", url, {"title": "Bob was here"})
        yield send(bob_client, "delete", url)
        yield send(bob_client, "post", f"{url}/restore")

    for of_hers, of_nobodys in zip(all_ways(item_id), all_ways(item_id + 1000), strict=True):
        assert code(of_hers) == (404, "40055")
        assert {**of_hers.json(), "request_id": ""} == {**of_nobodys.json(), "request_id": ""}
        assert "secret" not in of_hers.content.decode()
    assert listed(bob_client, statuses="active,archived,deleted") == []
    assert (list(MemoryItem.objects.values()), list(MemoryAuditLog.objects.values())) == before
