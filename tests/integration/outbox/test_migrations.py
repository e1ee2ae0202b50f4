"""What the outbox's data migrations make of rows that are there."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection

from outbox.models import OutboxMessage, Status
from outbox.queries import depth_and_lag
from smartflow.kernel.clock import utc_now
from tests.admin_rows import make_row

pytestmark = pytest.mark.django_db


def test_discarded_rows_are_set_apart_from_open_ones_and_put_back(monkeypatch):
    migration = import_module("outbox.migrations.0003_discarded_rows_apart")
    monkeypatch.setattr(migration, "BATCH", 2)
    now, editor = utc_now(), SimpleNamespace(connection=connection)
    given_up = [make_row(Status.DEAD, discarded_at=now, next_retry_at=None).pk for _ in range(5)]
    make_row(Status.DEAD)
    waiting = make_row(next_retry_at=now)

    migration.set_apart(apps, editor)

    moments = OutboxMessage.objects.filter(pk__in=given_up).values_list("next_retry_at", flat=True)
    assert set(moments) == {now}
    assert depth_and_lag(now=now).dead.value == 1

    migration.put_back(apps, editor)

    rows = OutboxMessage.objects.exclude(next_retry_at=None)
    assert list(rows.values_list("pk", flat=True)) == [waiting.pk]
