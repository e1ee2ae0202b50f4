"""smartflow/api/idempotency.py: one key, one effect, one answer."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from smartflow.api import idempotency_records
from smartflow.api.idempotency_records import (
    KEPT,
    StillInProgress,
    StoredAnswer,
    claim_key,
    prune_records,
    release_claim,
    store_answer,
)
from smartflow.api.models import IdempotencyRecord
from smartflow.kernel.clock import utc_now
from tests.integration.api import idempotent_views
from tests.integration.api.idempotent_views import URL, count_of

pytestmark = [pytest.mark.urls("tests.integration.api.idempotent_views"), pytest.mark.django_db(transaction=True)]


def send(client, body=None, *, key="key-1", url=URL, method="post"):
    headers = {} if key is None else {"X-Idempotency-Key": key}
    return getattr(client, method)(url, {} if body is None else body, format="json", headers=headers)


def status_of(answer):
    return answer.status_code, answer.json()["status"]


def test_the_second_request_gets_the_first_ones_answer_and_does_nothing(alice, alice_client):
    first, second = send(alice_client), send(alice_client)

    assert (first.status_code, first.json()["data"]["count"]) == (201, 1)
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert first["Content-Type"] == second["Content-Type"] == "application/json"
    assert (first.get("X-Idempotency-Replayed"), second["X-Idempotency-Replayed"]) == (None, "true")
    assert first["X-Own"] == "1"
    assert count_of(alice.id) == 1


def test_a_key_is_one_users_own(alice, alice_client, bob, bob_client):
    assert [send(client).status_code for client in (alice_client, bob_client)] == [201, 201]
    assert count_of(alice.id) == count_of(bob.id) == 1


@pytest.mark.parametrize(
    "other", [{"body": {"a": 1}}, {"url": "/api/v1/other"}, {"url": f"{URL}?a=1"}, {"method": "put"}]
)
def test_a_key_of_another_request_is_refused(alice, alice_client, other):
    send(alice_client)
    assert status_of(send(alice_client, **other)) == (422, "42200")
    assert count_of(alice.id) == 1


def test_the_same_body_written_differently_is_the_same_request(alice, alice_client):
    bodies = [b'{"a": 1, "b": 2}', b'{"b":2,"a":1}']
    answers = [
        alice_client.generic("POST", URL, body, "application/json", headers={"X-Idempotency-Key": "k"})
        for body in bodies
    ]
    assert answers[0].content == answers[1].content
    assert count_of(alice.id) == 1


def test_a_missing_key_is_asked_for_where_it_is_needed(alice, alice_client):
    answer = send(alice_client, key=None)
    assert status_of(answer) == (400, "40037")
    assert "X-Idempotency-Key" in answer.json()["fields"]
    assert send(alice_client, key=None, method="patch").status_code == 201
    assert not IdempotencyRecord.objects.exists()


@pytest.mark.parametrize("key", ["a" * 129, "a b", "naïve", "a\x7f", " "])
def test_a_malformed_key_is_refused(alice, alice_client, key):
    assert status_of(send(alice_client, key=key)) == (400, "40005")
    assert count_of(alice.id) == 0


def test_a_long_key_is_taken(alice_client):
    assert send(alice_client, key="~" * 128).status_code == 201


def test_who_is_not_signed_in_leaves_no_record(anonymous):
    assert send(anonymous).status_code == 401
    assert not IdempotencyRecord.objects.exists()


def test_a_method_that_does_not_exist_needs_no_key(alice_client):
    assert status_of(send(alice_client, method="delete", key=None)) == (405, "40500")


def test_a_refusal_is_replayed_and_its_effect_rolled_back(alice, alice_client):
    first, second = (send(alice_client, {"then": "conflict"}) for _ in range(2))
    assert status_of(first) == (409, "40900")
    assert first.content == second.content
    assert count_of(alice.id) == 0


@pytest.mark.parametrize(("then", "status"), [("crash", 500), ("503", 503)])
def test_a_failure_of_ours_is_rolled_back_and_can_be_tried_again_at_once(
    alice, alice_client, monkeypatch, then, status
):
    first = send(alice_client, {"then": then})
    assert (first.status_code, count_of(alice.id)) == (status, 0)

    monkeypatch.setattr(idempotent_views.Counting, "post", lambda self, request: idempotent_views.Response("ok"))
    assert send(alice_client, {"then": then}).status_code == 200


def test_a_request_that_is_still_at_work_keeps_its_duplicate_out(alice, alice_client, monkeypatch):
    duplicates = []
    monkeypatch.setattr(idempotent_views, "during", lambda request: duplicates or duplicates.append(send(alice_client)))
    assert send(alice_client).status_code == 201
    (duplicate,) = duplicates
    assert status_of(duplicate) == (409, "40038")
    assert int(duplicate["Retry-After"]) == 1
    assert count_of(alice.id) == 1


def before_work(monkeypatch, step):
    """Let something happen between the first request's claim and its transaction."""
    work, steps = idempotent_views.Counting._work, [step]

    def stepping(self, claim, handler):
        if steps:
            steps.pop()()
        return work(self, claim, handler)

    monkeypatch.setattr(idempotent_views.Counting, "_work", stepping)


def test_who_outlives_the_lease_rolls_back_and_gives_the_successors_answer(alice, alice_client, settings, monkeypatch):
    settings.IDEMPOTENCY_LEASE_SECONDS = 0
    successors = []
    before_work(monkeypatch, lambda: successors.append(send(alice_client)))

    answer = send(alice_client)

    assert (answer.status_code, answer.content) == (201, successors[0].content)
    assert (answer["X-Idempotency-Replayed"], successors[0].get("X-Idempotency-Replayed")) == ("true", None)
    assert count_of(alice.id) == 1


def test_who_outlives_the_lease_of_a_successor_at_work_rolls_back_and_waits(alice, alice_client, settings, monkeypatch):
    settings.IDEMPOTENCY_LEASE_SECONDS = 0

    def take_over():
        settings.IDEMPOTENCY_LEASE_SECONDS = 30
        record = IdempotencyRecord.objects.get()
        claim_key(user_id=alice.id, key="key-1", fingerprint=record.fingerprint, now=utc_now())

    before_work(monkeypatch, take_over)

    assert status_of(send(alice_client)) == (409, "40038")
    assert count_of(alice.id) == 0
    assert IdempotencyRecord.objects.get().lease_until > utc_now()


def test_a_refusal_that_outlives_the_lease_gives_the_successors_answer(alice, alice_client, settings, monkeypatch):
    settings.IDEMPOTENCY_LEASE_SECONDS = 0
    before_work(monkeypatch, lambda: send(alice_client, {"then": "conflict"}))
    answer = send(alice_client, {"then": "conflict"})
    assert (status_of(answer), answer["X-Idempotency-Replayed"]) == ((409, "40900"), "true")


def test_a_dead_owners_key_is_free_when_its_lease_is_over(alice, alice_client, settings, monkeypatch):
    def die():
        raise SystemExit

    before_work(monkeypatch, die)
    with pytest.raises(SystemExit):
        send(alice_client)
    assert status_of(send(alice_client)) == (409, "40038")

    IdempotencyRecord.objects.update(lease_until=utc_now())
    assert send(alice_client).status_code == 201
    assert count_of(alice.id) == 1


def test_a_commit_whose_answer_is_lost_is_found_by_the_repetition(alice, alice_client, monkeypatch):
    """The database did it and the network broke before it said so."""
    real, commits = BaseDatabaseWrapper.commit, []

    def commit(self):
        real(self)
        commits.append(1)
        if len(commits) == 1:  # the claim is one statement; this is the effect's
            raise OperationalError(2013, "Lost connection to server during query")

    monkeypatch.setattr(BaseDatabaseWrapper, "commit", commit)
    assert send(alice_client).status_code == 503
    answer = send(alice_client)
    assert (answer.status_code, answer["X-Idempotency-Replayed"]) == (201, "true")
    assert count_of(alice.id) == 1


def test_who_looked_before_another_took_over_takes_nothing_from_it(alice, monkeypatch):
    asked = {"user_id": alice.id, "key": "k", "fingerprint": "f", "now": utc_now()}
    claim_key(**asked)
    seen_before = IdempotencyRecord.objects.get()
    asked["now"] = seen_before.lease_until
    store_answer(claim=claim_key(**asked), status=200, body="{}")

    monkeypatch.setattr(idempotency_records, "_find", lambda user_id, key: seen_before)
    with pytest.raises(StillInProgress):
        claim_key(**asked)
    assert IdempotencyRecord.objects.get().status == 200


def test_release_claim_leaves_the_claim_and_the_answer_of_a_successor(alice):
    asked = {"user_id": alice.id, "key": "k", "fingerprint": "f"}
    now = utc_now()
    slow = claim_key(**asked, now=now)
    lease_end = IdempotencyRecord.objects.get().lease_until
    successor = claim_key(**asked, now=lease_end)

    release_claim(claim=slow, now=lease_end)
    assert IdempotencyRecord.objects.get().lease_until > lease_end
    with pytest.raises(StillInProgress):
        claim_key(**asked, now=lease_end)

    store_answer(claim=successor, status=200, body="{}")
    release_claim(claim=slow, now=lease_end)
    assert (IdempotencyRecord.objects.get().status, IdempotencyRecord.objects.get().body) == (200, "{}")


def test_a_key_can_be_used_again_after_a_day(alice, alice_client):
    send(alice_client)
    IdempotencyRecord.objects.update(expires_at=utc_now())
    assert send(alice_client, {"another": 1}).json()["data"]["count"] == 2
    assert IdempotencyRecord.objects.get().expires_at > utc_now() + KEPT - timedelta(minutes=1)


def test_prune_records_deletes_what_is_over_in_batches(alice):
    now = utc_now()
    for number in range(5):
        claim_key(user_id=alice.id, key=f"old-{number}", fingerprint="f", now=now - KEPT)
    claim = claim_key(user_id=alice.id, key="new", fingerprint="f", now=now)
    store_answer(claim=claim, status=200, body="{}")

    assert [prune_records(now=now, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert claim_key(user_id=alice.id, key="new", fingerprint="f", now=now) == StoredAnswer(200, "{}")


def test_a_repetition_costs_one_query_more_than_asking_who_it_is(
    alice_client, django_assert_num_queries, django_assert_max_num_queries
):
    with django_assert_max_num_queries(20) as first:
        send(alice_client)
    own = [query["sql"] for query in first if "idempotency_records" in query["sql"]]
    assert len(own) == 3  # look, claim, keep
    with django_assert_num_queries(2):
        send(alice_client)
