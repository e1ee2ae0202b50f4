"""A moment without a zone is the user's clock time, on every route that takes one."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.conf import settings
from rest_framework import serializers

from chat.memory_models import MemoryItem
from smartflow.api.fields import UserMoment
from smartflow.api.serializers import StrictSerializer
from smartflow.urls import urlpatterns
from tasks.models import Task

pytestmark = pytest.mark.django_db
CLOCK = "2036-07-01T12:00:00"
ZONES = [
    pytest.param("", datetime(2036, 7, 1, 4, tzinfo=UTC), id="the-installation's"),
    pytest.param("Europe/Berlin", datetime(2036, 7, 1, 10, tzinfo=UTC), id="the-user's"),
]
TASK = {"title": "Sheet", "priority_group": 1}
MEMORY = {"memory_type": "fact", "title": "Sheet", "content": "It is due in July."}
WRITES = [
    ("POST", "task/create", TASK, "deadline_at", Task),
    ("POST", "task/create", TASK, "urgency_threshold_at", Task),
    ("PUT", "task/update", {"task_id": 0}, "deadline_at", Task),
    ("PUT", "task/update", {"task_id": 0}, "urgency_threshold_at", Task),
    ("POST", "memory/items", MEMORY, "ttl_at", MemoryItem),
    ("PATCH", "memory/items/{id}", {}, "ttl_at", MemoryItem),
]
SHAPES = {
    "TaskCreate": {"deadline_at", "urgency_threshold_at"},
    "TaskUpdate": {"deadline_at", "urgency_threshold_at"},
    "TaskListQuery": {"deadline_after", "deadline_before"},
    "MemoryCreate": {"ttl_at"},
    "MemoryUpdate": {"ttl_at"},
}


def send(client, method, path, body):
    headers = {"X-Idempotency-Key": str(uuid4())}
    answer = client.generic(
        method, f"/api/v1/{path}", client._encode_data(body, "json")[0], "application/json", headers=headers
    )
    assert answer.status_code == 200, answer.json()
    return answer.json()["data"]


@pytest.fixture
def client_in(alice, client_of):
    """Return a function that signs Alice in with a time zone."""

    def make(zone):
        alice.time_zone = zone
        alice.save()
        return client_of(alice)

    return make


@pytest.mark.parametrize(("zone", "moment"), ZONES)
@pytest.mark.parametrize(("method", "path", "body", "field", "model"), WRITES)
def test_a_write_takes_a_moment_without_a_zone_as_the_users(client_in, zone, moment, method, path, body, field, model):
    client = client_in(zone)
    if method != "POST":
        made = send(
            client, "POST", "task/create" if model is Task else "memory/items", TASK if model is Task else MEMORY
        )
        path = path.format(id=made["id"])
        body = {**body, "task_id": made["id"]} if model is Task else body

    shown = send(client, method, path, {**body, field: CLOCK})

    assert getattr(model.objects.get(), field) == moment
    assert shown[field].startswith(CLOCK)
    assert datetime.fromisoformat(shown[field]) == moment


@pytest.mark.parametrize(("zone", "moment"), ZONES)
def test_a_list_takes_moments_without_a_zone_as_the_users(client_in, zone, moment):
    client = client_in(zone)
    send(client, "POST", "task/create", {**TASK, "deadline_at": moment.isoformat()})

    def found(**query):
        return len(client.get("/api/v1/task/get", query).json().get("data", []))

    assert found(deadline_after=CLOCK) == 1
    assert found(deadline_after="2036-07-01T12:00:01") == 0
    assert found(deadline_before="2036-07-01T12:00:01") == 1
    assert found(deadline_before=CLOCK) == 0


def test_the_zone_of_the_installation_is_shanghais():
    assert settings.TIME_ZONE == "Asia/Shanghai"


def test_every_moment_of_a_request_is_one_of_these():
    """A plain DateTimeField takes the zone of the installation, whatever the user's is."""
    assert urlpatterns  # every shape has been imported with the routes
    found = {}
    for shape in _below(StrictSerializer):
        fields = {name: field for name, field in shape().fields.items() if isinstance(field, serializers.DateTimeField)}
        assert all(isinstance(field, UserMoment) for field in fields.values()), shape
        if fields and not shape.__module__.startswith(("tests.", "smartflow.web.")):
            found[shape.__name__] = set(fields)
    found.pop("TaskFields", None)
    assert found == SHAPES, "Add the new route to this file's tables."


def _below(kind):
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)
