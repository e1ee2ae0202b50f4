"""The checker of the fault suite sees each broken promise, and nothing where none was broken."""

from dataclasses import replace

import pytest

from tests.faults.checker import Change, End, Entry, Violation, check

GOOD = End(
    journal=[Entry("c1", 1, "a", 7), Entry("c1", 2, "b", 0), Entry("c2", 1, "c", 5)],
    committed={"a", "b", "c"},
    rolled_back={"x"},
    rows={"a": "consumed", "b": "consumed", "c": "consumed"},
    histories={"c1": ["a", "b"], "c2": ["c"]},
    chats={"c1": (2, 7), "c2": (1, 5)},
    users={1: 12},
    owners={"c1": 1, "c2": 1},
    changes=[
        Change("a", "pending", "published", place=4),
        Change("a", "published", "pending"),
        Change("a", "pending", "consumed"),
        Change("b", "pending", "published", place=5),
        Change("b", "published", "dead"),
        Change("b", "dead", "pending", is_ready=True),
        Change("b", "pending", "consumed"),
        Change("c", "pending", "consumed"),
    ],
    requeued={"b"},
    may_die={"b"},
)


def kinds(end):
    return {violation.kind for violation in check(end)}


def test_check_finds_nothing_when_every_promise_was_kept():
    assert check(GOOD) == []


def test_check_finds_nothing_when_nothing_happened():
    assert check(End([], set(), set(), {}, {}, {}, {}, {})) == []


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"committed": {"a", "b", "c", "d"}}, "commit-lost"),
        ({"rolled_back": {"a"}}, "rollback-kept"),
        ({"histories": {"c1": ["a"], "c2": ["c"]}}, "lost"),
        ({"histories": {"c1": ["a", "b"], "c2": ["c", "x"]}}, "phantom"),
        ({"histories": {"c1": ["a", "b", "a"], "c2": ["c"]}}, "doubled"),
        ({"histories": {"c1": ["b", "a"], "c2": ["c"]}}, "order"),
        ({"chats": {"c1": (3, 7), "c2": (1, 5)}}, "counters"),
        ({"users": {1: 19}}, "counters"),
        ({"rows": {"a": "consumed", "b": "consumed", "c": "published"}}, "unfinished"),
        ({"rows": {"a": "consumed", "b": "consumed"}}, "rows"),
        ({"holds": 1}, "hold-left"),
        ({"requeued": set()}, "backwards"),
        ({"may_die": set()}, "dead"),
        ({"changes": [Change("a", "consumed", "published")]}, "backwards"),
        ({"changes": [Change("a", "published", "pending", is_ready=True)]}, "rescued"),
        (
            {
                "changes": [
                    Change("b", "pending", "published", place=3),
                    Change("a", "pending", "published", place=4),
                ]
            },
            "overtaken",
        ),
        ({"observed": [Violation("stuck", "a")]}, "stuck"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_check_names_a_broken_promise(changed, kind):
    assert kind in kinds(replace(GOOD, **changed))
