"""Fixtures of journeys: one stack a kind for all tests that leave it as it was, and the logs of a failed test."""

import os

import pytest

from tests.stack.parts import SERVICE_VARIABLES
from tests.stack.stack import Stack

HAS_SERVICES = all(os.environ.get(name) for name in SERVICE_VARIABLES)
SERVICES = pytest.param(
    "services",
    marks=[
        pytest.mark.services,
        pytest.mark.skipif(not HAS_SERVICES, reason=f"needs {', '.join(SERVICE_VARIABLES)}: see `make services`"),
    ],
)
# The suite runs twice, without and with services; the embedded journeys belong to the first run alone.
KIND_PARAMS = [SERVICES] if HAS_SERVICES else ["embedded", SERVICES]
# A stalled model is given up sooner than in production, but later than the first ping; a hung database sooner too.
# One user of a journey may do what many would.
JOURNEY_SETTINGS = {
    "CHAT_SILENCE_TIMEOUT_SECONDS": "7",
    "DATABASE_READ_TIMEOUT_SECONDS": "4",
    "CHAT_MAX_LIVE_RUNS_OF_USER": "1000",
    "CORS_ALLOWED_ORIGINS": "https://app.example.edu",
}


@pytest.fixture(scope="session", params=KIND_PARAMS)
def shared_stack(request, tmp_path_factory):
    with Stack(request.param, tmp_path_factory.mktemp(f"stack-{request.param}"), settings=JOURNEY_SETTINGS) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack):
    """The stack with every process running and every connection open."""
    shared_stack.ensure_running()
    return shared_stack


@pytest.fixture
def alice(stack):
    return stack.invite()


@pytest.fixture
def bob(stack):
    return stack.invite()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for stack in Stack.alive:
            for name, process in stack.processes.items():
                report.sections.append((f"{stack.kind} {name}", process.log_tail()))
    return report
