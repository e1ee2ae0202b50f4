"""What a request of the task routes sends to the database, exactly: who asks, and whether it asked before, included."""

import re
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from smartflow.kernel.clock import utc_now
from tests.task_rows import add_class, add_task, key

# Committed for real: around a test's own transaction there would be savepoints instead.
pytestmark = pytest.mark.django_db(transaction=True)
API = "/api/v1/task"
WHO = "SELECT token_sessions"
REVISION = "SELECT task_revisions"
# Looked for, claimed by a commit of its own; the rest is one transaction around the operation's.
ASKED = [WHO, "SELECT idempotency_records", "INSERT idempotency_records", "BEGIN", "SAVEPOINT", "INSERT task_revisions"]
KEPT = ["INSERT agent_outbox_messages", "RELEASE", "UPDATE idempotency_records", "COMMIT"]


@pytest.fixture(autouse=True)
def empty_cache():
    cache.clear()


def statements(step):
    """Return what a request sends: verb and table of what reads and writes, the word of what begins and ends."""
    with CaptureQueriesContext(connection) as captured:
        answer = step()
    assert answer.status_code == 200, answer.json()
    return [_short(query["sql"]) for query in captured]


def _short(sql):
    verb = sql.split()[0]
    if verb in ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"):
        return verb
    table = re.search(r"(?:FROM|INTO|UPDATE) [`\"]?([a-z_]+)", sql)
    return f"{verb} {table[1]}"


def fill(user, count=3):
    return [add_task(user, deadline_at=utc_now() + timedelta(days=9)) for _ in range(count)]


def test_whole_list_sends_two_statements_once_it_is_copied(alice, alice_client):
    fill(alice)
    assert statements(lambda: alice_client.get(f"{API}/get")) == [WHO, REVISION, "SELECT tasks"]
    assert statements(lambda: alice_client.get(f"{API}/get")) == [WHO, REVISION]


@pytest.mark.parametrize(
    "query", ["limit=2", "limit=2&sort=-created", "limit=2&quadrant=3&completed=false&keyword=Home"]
)
def test_page_sends_two_statements(alice, alice_client, query):
    fill(alice)
    assert statements(lambda: alice_client.get(f"{API}/get?{query}")) == [WHO, "SELECT tasks"]


def test_create_sends_seven_statements_and_commits_twice(alice_client):
    body = {"title": "Homework", "priority_group": 2, "deadline_at": "2036-03-05T15:59:00Z"}

    sent = statements(lambda: alice_client.post(f"{API}/create", body, format="json", headers=key()))

    assert sent == [*ASKED, "INSERT tasks", *KEPT]


def test_complete_sends_eight_statements_and_commits_twice(alice, alice_client):
    (task_id,) = fill(alice, 1)

    sent = statements(lambda: alice_client.put(f"{API}/complete", {"task_id": task_id}, format="json", headers=key()))

    assert sent == [*ASKED, "SELECT tasks", "UPDATE tasks", *KEPT]


def test_repeated_complete_sends_two_statements(alice, alice_client):
    (task_id,) = fill(alice, 1)
    same = key()

    def send():
        return alice_client.put(f"{API}/complete", {"task_id": task_id}, format="json", headers=same)

    assert send().status_code == 200
    assert statements(send) == [WHO, "SELECT idempotency_records"]


def test_update_sends_what_complete_does(alice, alice_client):
    (task_id,) = fill(alice, 1)

    sent = statements(
        lambda: alice_client.put(f"{API}/update", {"task_id": task_id, "title": "x"}, format="json", headers=key())
    )

    assert sent == [*ASKED, "SELECT tasks", "UPDATE tasks", *KEPT]


def test_classes_cost_two_statements_once_they_are_copied(alice, alice_client):
    view = add_class(alice)
    for path, tables in (
        ("list", ["SELECT task_classes"]),
        (f"get?task_class_id={view.id}", ["SELECT task_classes", "SELECT task_items"]),
    ):
        assert statements(lambda path=path: alice_client.get(f"{API}-class/{path}")) == [WHO, REVISION, *tables]
        assert statements(lambda path=path: alice_client.get(f"{API}-class/{path}")) == [WHO, REVISION]
