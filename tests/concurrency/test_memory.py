"""Items of the long-term memory that race: no change is lost, and the audit tells one order that explains the end."""

import itertools

import pytest

from chat import memory_queries, operations
from chat.memory_contracts import MemoryChange, MemorySwitches, SwitchesChange
from chat.memory_models import MemoryAuditLog, MemoryItem, MemorySettings
from tests.memory_rows import LATER, NOW, add_memory, by_user
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


def changing(user, item_id, **values):
    return lambda: operations.change_memory_item(
        user_id=user.pk, item_id=item_id, change=MemoryChange(**values), by=by_user(user), now=LATER
    )


def deleting(user, item_id):
    return lambda: operations.delete_memory_item(user_id=user.pk, item_id=item_id, by=by_user(user), now=LATER)


def restoring(user, item_id):
    return lambda: operations.restore_memory_item(user_id=user.pk, item_id=item_id, by=by_user(user), now=LATER)


def check_chain(lines, end):
    """Each line begins where the one before it ended, and the last ends with what is there."""
    for earlier, later in itertools.pairwise(lines):
        assert later.before == earlier.after
    assert {name: lines[-1].after[name] for name in end} == end


def test_two_devices_that_change_different_fields_lose_nothing(alice):
    for turn in range(10):
        item_id = add_memory(alice)
        outcomes = run_at_once(
            changing(alice, item_id, title=f"Title {turn}"),
            changing(alice, item_id, content=f"Content {turn}"),
            changing(alice, item_id, confidence=0.1, is_explicit=False),
        )

        row = MemoryItem.objects.get(pk=item_id)
        assert [outcome.id for outcome in outcomes] == [item_id] * 3
        end = {"title": f"Title {turn}", "content": f"Content {turn}", "confidence": 0.1, "is_explicit": False}
        assert {name: getattr(row, name) for name in end} == end
        lines = list(MemoryAuditLog.objects.filter(item_id=item_id).order_by("id"))
        assert len(lines) == 4
        check_chain(lines, end)


def test_two_devices_that_change_the_same_field_leave_an_audit_that_explains_the_end(alice):
    item_id = add_memory(alice)

    outcomes = run_at_once(*[changing(alice, item_id, title=f"Title {number}") for number in range(12)])

    assert {outcome.title for outcome in outcomes} == {f"Title {number}" for number in range(12)}
    lines = list(MemoryAuditLog.objects.order_by("id"))
    assert len(lines) == 13
    check_chain(lines, {"title": MemoryItem.objects.get().title})


def test_deletes_and_restores_at_once_leave_a_line_for_each_step_that_happened(alice):
    for _ in range(5):
        item_id = add_memory(alice)
        outcomes = run_at_once(
            *[deleting(alice, item_id)] * 3, *[restoring(alice, item_id)] * 3, changing(alice, item_id, title="New")
        )

        refused = isinstance(outcomes[-1], operations.MemoryDeleted)
        assert [outcome.status for outcome in outcomes[:-1]] == ["deleted"] * 3 + ["active"] * 3
        row = MemoryItem.objects.get(pk=item_id)
        assert (row.title == "New") != refused
        lines = list(MemoryAuditLog.objects.filter(item_id=item_id).order_by("id"))
        check_chain(lines, {"status": row.status, "title": row.title})
        steps = [line.action for line in lines if line.action in ("delete", "restore")]
        assert steps == [("delete", "restore")[number % 2] for number in range(len(steps))]


def test_first_turns_of_switches_at_once_lose_nothing_and_never_deadlock(alice, bob):
    names = ("memory_enabled", "implicit_memory_enabled", "sensitive_memory_enabled")
    for _ in range(5):
        MemorySettings.objects.all().delete()
        MemoryAuditLog.objects.all().delete()
        outcomes = run_at_once(
            *[
                lambda user=user, name=name: operations.change_memory_switches(
                    user_id=user.pk,
                    change=SwitchesChange(**{name: name.startswith("sensitive")}),
                    by=by_user(user),
                    now=NOW,
                )
                for user in (alice, bob)
                for name in names
            ]
        )

        assert all(isinstance(outcome, MemorySwitches) for outcome in outcomes), outcomes
        for user in (alice, bob):
            assert memory_queries.get_memory_switches(user_id=user.pk) == MemorySwitches(
                memory_enabled=False, implicit_memory_enabled=False, sensitive_memory_enabled=True
            )
            lines = list(MemoryAuditLog.objects.filter(user=user).order_by("id"))
            assert len(lines) == 3
            check_chain(lines, {name: name.startswith("sensitive") for name in names})
