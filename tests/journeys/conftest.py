"""Every test below speaks HTTP to real processes. Alice owns; Bob is another user."""

import pytest

from tests.stack.fixtures import alice, bob, pytest_runtest_makereport, shared_stack, stack

__all__ = ["alice", "bob", "pytest_runtest_makereport", "shared_stack", "stack"]


def pytest_collection_modifyitems(items):
    for item in items:
        if "journeys" in item.path.parts:
            item.add_marker(pytest.mark.stack)
