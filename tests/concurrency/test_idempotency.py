"""Repetitions that come at once: one effect, and every answer equal or "still in progress"."""

import threading
from collections import Counter

import pytest
from django.db import connection
from rest_framework.test import APIClient

from smartflow.api.models import IdempotencyRecord
from smartflow.kernel.clock import utc_now
from tests.factories import make_user, sign_in
from tests.integration.api import idempotent_views
from tests.integration.api.idempotent_views import URL, count_of
from tests.racing import run_at_once

pytestmark = [pytest.mark.urls("tests.integration.api.idempotent_views"), pytest.mark.django_db(transaction=True)]

DUPLICATES = 200


@pytest.fixture
def alice(transactional_db):
    return make_user("alice")


@pytest.fixture
def send(alice):
    header = f"Bearer {sign_in(alice).access_token}"

    def send():
        client = APIClient(raise_request_exception=False)
        return client.post(URL, {"a": 1}, format="json", headers={"X-Idempotency-Key": "k", "Authorization": header})

    return send


def test_200_repetitions_at_once_have_one_effect(alice, send):
    answers = run_at_once(*[send] * DUPLICATES)

    kinds = Counter(answer.status_code for answer in answers)
    assert set(kinds) <= {201, 409}
    assert kinds[201] >= 1
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert {answer.json()["status"] for answer in answers if answer.status_code == 409} <= {"40038"}
    assert all(int(answer["Retry-After"]) == 1 for answer in answers if answer.status_code == 409)
    assert count_of(alice.id) == 1
    assert send().content == next(answer for answer in answers if answer.status_code == 201).content


def test_200_repetitions_at_once_of_a_dead_owners_key_have_one_effect(alice, send, monkeypatch):
    monkeypatch.setattr(idempotent_views.Counting, "_work", lambda *args: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        send()
    monkeypatch.undo()
    IdempotencyRecord.objects.update(lease_until=utc_now())

    answers = run_at_once(*[send] * DUPLICATES)

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert count_of(alice.id) == 1


def test_a_slow_request_is_overtaken_in_the_middle_of_its_transaction(alice, send, settings, monkeypatch):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer: nobody overtakes a transaction")
    has_begun, has_overtaken, order = threading.Event(), threading.Event(), []
    settings.IDEMPOTENCY_LEASE_SECONDS = 0

    def during(request):
        order.append(threading.current_thread().name)
        if len(order) == 1:
            has_begun.set()
            assert has_overtaken.wait(20)

    # The counter's row would make the successor wait for the slow one, so the effect is a row of its own.
    def post(self, request):
        idempotent_views.User.objects.create(username=f"effect-{len(order)}")
        during(request)
        return idempotent_views.Response({"effect": len(order)})

    monkeypatch.setattr(idempotent_views.Counting, "post", post)

    def overtake():
        try:
            assert has_begun.wait(20)
            return send()
        finally:
            has_overtaken.set()

    slow, successor = run_at_once(send, overtake)

    assert (successor.status_code, successor.get("X-Idempotency-Replayed")) == (200, None)
    assert (slow.status_code, slow["X-Idempotency-Replayed"], slow.content) == (200, "true", successor.content)
    assert idempotent_views.User.objects.filter(username__startswith="effect-").count() == 1
