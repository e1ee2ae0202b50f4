"""Items of the long-term memory and the switches: what is written, what the audit says, what lists show."""

from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from chat import memory_queries as queries
from chat import operations
from chat.memory.items import MemoryContentInvalid, MemoryFieldInvalid, MemoryTypeInvalid, content_hash
from chat.memory_contracts import (
    Author,
    AuthorKind,
    MemoryChange,
    MemoryFilter,
    MemorySwitches,
    NewMemory,
    SwitchesChange,
)
from chat.memory_models import MemoryAuditLog, MemoryItem, MemorySettings
from smartflow.kernel.ids import new_uuid
from tests.admin_rows import make_chat
from tests.memory_rows import LATER, NOW, add_archived_memory, add_deleted_memory, add_memory, by_user

pytestmark = pytest.mark.django_db
ACTIVE_ONLY = MemoryFilter(statuses=("active",))


def audit():
    return list(MemoryAuditLog.objects.order_by("id"))


def change(user, item_id, now=LATER, by=None, **values):
    return operations.change_memory_item(
        user_id=user.pk, item_id=item_id, change=MemoryChange(**values), by=by or by_user(user), now=now
    )


def delete(user, item_id, by=None):
    return operations.delete_memory_item(user_id=user.pk, item_id=item_id, by=by or by_user(user), now=LATER)


def restore(user, item_id, by=None):
    return operations.restore_memory_item(user_id=user.pk, item_id=item_id, by=by or by_user(user), now=LATER)


def listed(user, wanted=ACTIVE_ONLY, limit=100, cursor=""):
    return [i.id for i in queries.list_memory_items(user_id=user.pk, wanted=wanted, limit=limit, cursor=cursor).items]


def test_create_memory_item_has_the_defaults_and_is_audited(alice):
    item_id = add_memory(alice, " Never before ten ", by=by_user(alice, " so she said "))

    view = queries.get_memory_item(user_id=alice.pk, item_id=item_id)
    assert (view.confidence, view.importance, view.sensitivity_level, view.is_explicit) == (0.95, 0.9, 0, True)
    assert (view.content, view.content_hash) == ("Never before ten", content_hash(content="Never before ten"))
    assert (view.status, view.created_at, view.updated_at, view.ttl_at) == ("active", NOW, NOW, None)
    [line] = audit()
    assert (line.action, line.item_id, line.user_id, line.created_at) == ("create", item_id, alice.pk, NOW)
    assert (line.author_kind, line.author_id, line.reason) == ("user", alice.pk, "so she said")
    assert line.before is None
    assert (line.after["content"], line.after["status"], line.after["ttl_at"]) == ("Never before ten", "active", None)


def test_create_memory_item_takes_the_system_for_its_author(alice):
    item_id = add_memory(alice, by=Author(kind=AuthorKind.SYSTEM, reason="said in passing"), is_explicit=False)

    [line] = audit()
    assert (line.item_id, line.author_kind, line.author_id) == (item_id, "system", None)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"memory_type": "x"}, MemoryTypeInvalid),
        ({"content": " "}, MemoryContentInvalid),
        ({"title": ""}, MemoryFieldInvalid),
        ({"confidence": 2}, MemoryFieldInvalid),
        ({"conversation_id": new_uuid()}, operations.ConversationNotFound),
    ],
)
def test_create_memory_item_writes_nothing_when_it_refuses(alice, values, error):
    with pytest.raises(error):
        add_memory(alice, **values)

    assert not MemoryItem.objects.exists()
    assert not MemoryAuditLog.objects.exists()


def test_a_line_of_the_audit_that_cannot_be_written_takes_the_change_back(alice):
    item_id = add_memory(alice)
    for write in (
        lambda: add_memory(alice, by=by_user(alice, "x" * 256)),
        lambda: change(alice, item_id, by=by_user(alice, "x" * 256), title="Other"),
        lambda: delete(alice, item_id, by=by_user(alice, "x" * 256)),
    ):
        with pytest.raises(MemoryFieldInvalid), transaction.atomic():
            write()

    [row] = MemoryItem.objects.all()
    assert (row.title, row.status, len(audit())) == ("Mornings", "active", 1)


def test_create_memory_item_takes_conversations_of_the_user_alone(alice, bob):
    mine, his, gone = make_chat(alice), make_chat(bob), make_chat(alice, deleted_at=NOW)

    assert MemoryItem.objects.get(pk=add_memory(alice, conversation_id=mine.chat_id)).conversation_id == mine.chat_id
    for other in (his, gone):
        with pytest.raises(operations.ConversationNotFound):
            add_memory(alice, conversation_id=other.chat_id)
        with pytest.raises(operations.ConversationNotFound):
            change(alice, MemoryItem.objects.get().pk, conversation_id=other.chat_id)


def test_change_memory_item_changes_clears_and_leaves(alice):
    item_id = add_memory(alice, run_id="r1", assistant_id="a1", ttl_at=LATER, confidence=0.5)
    was = queries.get_memory_item(user_id=alice.pk, item_id=item_id)

    now_is = change(alice, item_id, content="Never before eleven", run_id=None, ttl_at=None, confidence=0.0)

    assert now_is == replace(
        was,
        content="Never before eleven",
        content_hash=content_hash(content="Never before eleven"),
        run_id=None,
        ttl_at=None,
        confidence=0.0,
        updated_at=LATER,
    )
    assert queries.get_memory_item(user_id=alice.pk, item_id=item_id) == now_is
    line = audit()[-1]
    differing = {name for name in line.after if line.before[name] != line.after[name]}
    assert (line.action, differing) == ("update", {"content", "run_id", "ttl_at", "confidence"})
    assert (line.before["ttl_at"], line.before["content"]) == (LATER.isoformat(), "Never before ten")


def test_change_memory_item_writes_what_differs_alone(alice):
    item_id = add_memory(alice)
    with CaptureQueriesContext(connection) as captured:
        change(alice, item_id, title="Evenings", content="Never before ten")

    [update] = [query["sql"] for query in captured if query["sql"].startswith("UPDATE")]
    assert "title" in update
    assert "content" not in update


def test_change_memory_item_leaves_no_line_when_nothing_differs(alice):
    item_id = add_memory(alice)
    view = change(alice, item_id, title="Mornings", confidence=0.95)

    assert (view.updated_at, len(audit())) == (NOW, 1)


def test_change_memory_item_refuses_nothing_and_what_is_deleted(alice):
    item_id = add_deleted_memory(alice)

    with pytest.raises(operations.MemoryChangeEmpty):
        change(alice, item_id)
    with pytest.raises(operations.MemoryDeleted):
        change(alice, item_id, title="Evenings")


def test_delete_memory_item_twice_leaves_one_line_and_restore_brings_it_back(alice):
    item_id = add_memory(alice)

    assert [delete(alice, item_id).status for _ in range(2)] == ["deleted", "deleted"]
    assert listed(alice) == []
    assert [restore(alice, item_id).status for _ in range(2)] == ["active", "active"]
    assert listed(alice) == [item_id]
    assert [line.action for line in audit()] == ["create", "delete", "restore"]
    assert [(line.before or {}).get("status") for line in audit()] == [None, "active", "deleted"]


def test_restore_memory_item_makes_an_archived_one_active(alice):
    assert restore(alice, add_archived_memory(alice)).status == "active"


def test_bob_finds_and_changes_nothing_of_alices(alice, bob):
    item_id = add_memory(alice)
    before = list(MemoryItem.objects.values())

    for write in (lambda: change(bob, item_id, title="Bob was here"), lambda: delete(bob, item_id)):
        with pytest.raises(operations.MemoryNotFound):
            write()
    with pytest.raises(operations.MemoryNotFound):
        restore(bob, item_id)
    with pytest.raises(operations.MemoryNotFound):
        queries.get_memory_item(user_id=bob.pk, item_id=item_id)
    assert listed(bob, MemoryFilter(statuses=("active", "archived", "deleted"))) == []
    assert list(MemoryItem.objects.values()) == before
    assert len(audit()) == 1


def test_list_memory_items_filters_and_includes_global_items(alice):
    one, two = make_chat(alice).chat_id, make_chat(alice).chat_id
    everywhere = add_memory(alice)
    here = add_memory(alice, conversation_id=one, memory_type="fact")
    there = add_memory(alice, conversation_id=two, ttl_at=NOW - timedelta(days=1))
    archived, deleted = add_archived_memory(alice), add_deleted_memory(alice)

    assert listed(alice, MemoryFilter()) == [archived, there, here, everywhere]
    assert listed(alice, MemoryFilter(statuses=("deleted", "archived"))) == [deleted, archived]
    assert listed(alice, MemoryFilter(conversation_id=one)) == [archived, here, everywhere]
    assert listed(alice, MemoryFilter(memory_types=("fact",))) == [here]
    assert listed(alice, MemoryFilter(memory_types=("fact", "preference"), conversation_id=two)) == [
        archived,
        there,
        everywhere,
    ]


def test_list_memory_items_pages_without_gap_or_repeat_while_items_are_added(alice):
    ids = [add_memory(alice, now=NOW + timedelta(minutes=number // 3)) for number in range(25)]
    seen, cursor = [], ""
    while True:
        page = queries.list_memory_items(user_id=alice.pk, wanted=MemoryFilter(), limit=4, cursor=cursor)
        seen += [item.id for item in page.items]
        add_memory(alice, now=LATER)
        cursor = page.next_cursor
        if not cursor:
            break

    assert seen == ids[::-1]


@pytest.mark.parametrize("cursor", ["x", "1", "~", "1~", "1~x", "-1~1", f"{2**57}~1", "1~2~3", "١~1"])
def test_list_memory_items_refuses_a_cursor_of_another_list(alice, cursor):
    with pytest.raises(queries.MemoryCursorInvalid):
        listed(alice, cursor=cursor)


@pytest.mark.parametrize("count", [1, 30])
def test_list_memory_items_takes_two_queries_however_many_there_are(alice, django_assert_num_queries, count):
    for _ in range(count):
        add_memory(alice)

    with django_assert_num_queries(2):
        assert len(listed(alice, limit=20)) == min(count, 20)


def test_switches_have_defaults_and_each_turn_is_audited(alice, bob):
    def turn(**values):
        return operations.change_memory_switches(
            user_id=alice.pk, change=SwitchesChange(**values), by=by_user(alice), now=LATER
        )

    defaults = MemorySwitches(memory_enabled=True, implicit_memory_enabled=True, sensitive_memory_enabled=False)
    assert queries.get_memory_switches(user_id=alice.pk) == defaults
    assert turn(memory_enabled=True) == defaults
    assert audit() == []
    turned = turn(memory_enabled=False, sensitive_memory_enabled=True)
    assert turn(memory_enabled=False) == turned == queries.get_memory_switches(user_id=alice.pk)
    assert queries.get_memory_switches(user_id=bob.pk) == defaults
    [line] = audit()
    assert (line.action, line.item_id, line.user_id, line.author_id) == ("settings", None, alice.pk, alice.pk)
    assert (line.before, line.after) == (asdict(defaults), asdict(turned))
    with pytest.raises(operations.MemoryChangeEmpty):
        turn()


def test_deleting_a_user_takes_the_memory_along(alice, bob):
    for user in (alice, bob):
        add_memory(user)
        operations.change_memory_switches(
            user_id=user.pk, change=SwitchesChange(memory_enabled=False), by=by_user(user), now=NOW
        )

    alice.delete()

    for model in (MemoryItem, MemoryAuditLog, MemorySettings):
        assert set(model.objects.values_list("user_id", flat=True)) == {bob.pk}


@pytest.mark.parametrize(
    "values",
    [{"memory_type": "x"}, {"status": "x"}, {"confidence": 1.5}, {"importance": -1}, {"sensitivity_level": 3}],
)
def test_the_database_itself_refuses_what_no_item_is(alice, values):
    item_id = add_memory(alice)

    with pytest.raises(IntegrityError), transaction.atomic():
        MemoryItem.objects.filter(pk=item_id).update(**values)


def test_new_memory_and_memory_change_name_the_same_columns():
    item = NewMemory(memory_type="fact", title="x", content="x")
    assert set(vars(item)) == set(vars(MemoryChange()))
