"""The operators' pages of the long-term memory."""

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat import operations
from chat.memory_contracts import MemoryChange
from chat.memory_models import MemoryAuditLog, MemoryItem
from tests.admin_rows import operator_client
from tests.memory_rows import LATER, add_archived_memory, add_deleted_memory, add_memory, by_user, turn_switch

pytestmark = pytest.mark.django_db
MODELS = ("memoryitem", "memoryauditlog", "memorysettings")
SEES = tuple(f"chat.view_{name}" for name in MODELS)
ITEMS, CHANGES, SETTINGS = (f"/admin/chat/{name}/" for name in MODELS)


@pytest.fixture
def operator():
    return operator_client(*SEES, "chat.delete_memoryitem", "chat.change_memoryitem")


@pytest.fixture
def reader():
    return operator_client(*SEES, "chat.view_message_text", username="reader")


def listed(client, url, **query):
    return [row.pk for row in client.get(url, query).context["cl"].result_list]


def act(client, action, *ids, **values):
    return client.post(ITEMS, {"action": action, "_selected_action": ids, **values}, follow=True)


def rename(user, item_id, title, reason=""):
    operations.change_memory_item(
        user_id=user.pk, item_id=item_id, change=MemoryChange(title=title), by=by_user(user, reason), now=LATER
    )


def test_items_are_found_by_id_user_status_and_type(operator, alice, bob):
    one, fact = add_memory(alice), add_memory(alice, memory_type="fact")
    archived, deleted, his = add_archived_memory(alice), add_deleted_memory(alice), add_memory(bob)

    assert listed(operator, ITEMS) == [his, deleted, archived, fact, one]
    assert listed(operator, ITEMS, q="alice") == [deleted, archived, fact, one]
    assert listed(operator, ITEMS, q=str(bob.pk)) == [his]
    assert listed(operator, ITEMS, q=f"#{fact}") == [fact]
    assert listed(operator, ITEMS, q="ali") == listed(operator, ITEMS, q="#x") == []
    assert listed(operator, ITEMS, status="deleted") == [deleted]
    assert listed(operator, ITEMS, type="fact") == [fact]
    assert listed(operator, ITEMS, type="preference", status="active") == [his, one]
    assert listed(operator, ITEMS, q="alice", status="archived", type="preference") == [archived]


@pytest.mark.parametrize("query", [{}, {"status": "active"}, {"type": "preference"}, {"q": "alice"}])
def test_items_are_paged_by_key(operator, alice, query):
    ids = [add_memory(alice) for _ in range(60)]
    first = operator.get(ITEMS, query).context["cl"]
    second = operator.get(ITEMS + first.next_page).context["cl"]

    assert [row.pk for row in (*first.result_list, *second.result_list)] == ids[::-1]


@pytest.mark.parametrize("page", ["list", "row", "change", "changes", "reason"])
def test_what_is_remembered_is_shown_with_the_permission_alone(operator, reader, alice, page):
    item_id = add_memory(alice, "private content", title="private title", by=by_user(alice, "private reason"))
    rename(alice, item_id, "private other title", "private reason too")
    url = {
        "list": ITEMS,
        "row": f"{ITEMS}{item_id}/change/",
        "change": f"{CHANGES}{MemoryAuditLog.objects.last().pk}/change/",
        "changes": CHANGES,
        "reason": None,
    }[page]

    if url is None:
        assert "private" not in act(operator, "delete_items", item_id).content.decode()
        return
    with CaptureQueriesContext(connection) as captured:
        assert "private" not in operator.get(url).content.decode()
    of_items = [query["sql"] for query in captured if 'FROM "memory_items"' in query["sql"].replace("`", '"')]
    assert not [sql for sql in of_items if "content" in sql.replace("content_hash", "")]
    text = reader.get(url).content.decode()
    assert ("private" in text) == (page != "changes")
    assert ("private title" in text) == (page in ("row", "change"))


def test_item_page_shows_who_changed_it_newest_first_and_costs_the_same_with_many(reader, alice):
    few, many = add_memory(alice), add_memory(alice)
    for number in range(60):
        rename(alice, many, f"Title {number:02}", "why not")
    reader.get(f"{ITEMS}{few}/change/")
    costs = []
    for item_id in (few, many):
        with CaptureQueriesContext(connection) as captured:
            response = reader.get(f"{ITEMS}{item_id}/change/")
        costs.append(len(captured))
    lines = response.context["changes"].lines

    assert costs[0] == costs[1] <= 9
    assert len(lines) == 50
    assert "Title 58 → Title 59" in lines[0].cells[3]
    assert [str(cell) for cell in (lines[0].cells[1], lines[0].cells[2], lines[0].cells[4])] == [
        "changed",
        "the user",
        "why not",
    ]


def test_items_are_deleted_and_restored_with_a_reason_by_operations_and_it_is_logged(operator, alice):
    one, archived, gone = add_memory(alice), add_archived_memory(alice), add_deleted_memory(alice)

    asked = act(operator, "delete_items", one, archived, gone)
    assert [line.cells[0] for line in asked.context["items"].lines] == [f"#{gone}", f"#{archived}", f"#{one}"]
    assert "Give" not in asked.content.decode()
    assert MemoryItem.objects.filter(status="deleted").count() == 1
    told = act(operator, "delete_items", one, archived, gone, reason=" asked\nby the user ").content.decode()
    assert "Done: 2 memory items." in told
    assert MemoryItem.objects.filter(status="deleted").count() == 3
    act(operator, "restore_items", one, reason="asked again")

    by = operator.session["_auth_user_id"]
    lines = MemoryAuditLog.objects.filter(author_kind="admin").order_by("id")
    assert [(line.action, line.item_id, line.reason, str(line.author_id)) for line in lines] == [
        ("delete", archived, "asked by the user", by),
        ("delete", one, "asked by the user", by),
        ("restore", one, "asked again", by),
    ]
    logged = LogEntry.objects.order_by("id")
    assert [entry.change_message for entry in logged] == [
        *["deleted by an operator. Reason: asked by the user"] * 2,
        "restored by an operator. Reason: asked again",
    ]
    assert logged[1].object_repr == f"memory item {one} of alice"
    page = operator.get(f"{ITEMS}{one}/change/").context["changes"].lines[0].cells
    assert (page[2], page[4]) == (f"operator #{by}", "asked again")


@pytest.mark.parametrize(
    ("reason", "hint"), [("", "Say why"), ("  ", "Say why"), ("x" * 256, "255"), ("a\x07b", "control")]
)
def test_actions_ask_again_for_a_reason_that_does_not_do(operator, alice, reason, hint):
    item_id = add_memory(alice)

    answer = act(operator, "delete_items", item_id, reason=reason)

    assert hint in answer.content.decode()
    assert MemoryItem.objects.get().status == "active"
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(("action", "make"), [("delete_items", add_memory), ("restore_items", add_deleted_memory)])
def test_actions_need_their_permission(reader, alice, action, make):
    item_id = make(alice)
    before = list(MemoryItem.objects.values())

    act(reader, action, item_id, reason="just so")

    assert list(MemoryItem.objects.values()) == before


def test_changes_and_settings_are_found_by_item_and_user(operator, alice, bob):
    mine, his = add_memory(alice), add_memory(bob)
    rename(alice, mine, "Other")
    turn_switch(alice)
    created, created_his, renamed, turned = MemoryAuditLog.objects.order_by("id").values_list("pk", flat=True)

    assert listed(operator, CHANGES) == [turned, renamed, created_his, created]
    assert listed(operator, CHANGES, q=f"#{mine}") == [renamed, created]
    assert listed(operator, CHANGES, q="alice") == [turned, renamed, created]
    assert listed(operator, CHANGES, q=f"#{his}") == [created_his]
    assert listed(operator, SETTINGS) == listed(operator, SETTINGS, q="alice") == [alice.pk]
    assert listed(operator, SETTINGS, q="bob") == []
    assert "memory_enabled" in operator.get(f"{CHANGES}{turned}/change/").content.decode()
    assert operator.get(f"{SETTINGS}{alice.pk}/change/").status_code == 200


@pytest.mark.parametrize("url", [ITEMS, CHANGES, SETTINGS])
def test_nothing_can_be_written_by_hand(operator, alice, url):
    item_id = add_memory(alice)
    turn_switch(alice)
    pk = {ITEMS: item_id, CHANGES: MemoryAuditLog.objects.first().pk, SETTINGS: alice.pk}[url]

    assert operator.get(f"{url}add/").status_code == 403
    assert operator.post(f"{url}{pk}/delete/", {"post": "yes"}).status_code == 403
    assert operator.post(f"{url}{pk}/change/", {"title": "x"}).status_code == 403
    assert operator_client(username="stranger").get(url).status_code == 403
