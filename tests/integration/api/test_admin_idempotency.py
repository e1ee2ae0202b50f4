"""The operators' pages of idempotency records."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from smartflow.api.idempotency_records import claim_key, release_claim, store_answer
from smartflow.api.models import IdempotencyRecord
from smartflow.kernel.clock import utc_now
from tests.admin_rows import operator_client

pytestmark = pytest.mark.django_db
LIST = "/admin/edge/idempotencyrecord/"
ANSWER = '{"data": {"title": "private words"}}'


@pytest.fixture
def operator():
    return operator_client("edge.view_idempotencyrecord")


def claim(user, key, *, now=None):
    return claim_key(user_id=user.pk, key=key, fingerprint="f", now=now or utc_now())


def answer(user, key, **at):
    store_answer(claim=claim(user, key, **at), status=200, body=ANSWER)
    return IdempotencyRecord.objects.get(user_id=user.pk, key=key)


def listed(client, **query):
    return [row.key for row in client.get(LIST, query).context["cl"].result_list]


def test_records_are_found_by_user_by_key_and_by_whether_they_are_kept(operator, alice, bob):
    answer(alice, "a-1")
    answer(alice, "a-2", now=utc_now() - timedelta(days=2))
    answer(bob, "b-1")

    assert listed(operator) == ["b-1", "a-2", "a-1"]
    assert listed(operator, q="alice") == ["a-1", "a-2"]
    assert listed(operator, q=f"{alice.pk} a-2") == ["a-2"]
    assert listed(operator, q="bob a-2") == []
    assert listed(operator, q="a-1") == []
    assert listed(operator, kept="no") == ["a-2"]
    assert listed(operator, kept="yes") == ["b-1", "a-1"]
    assert listed(operator, kept="yes", q="alice") == ["a-1"]


def test_list_tells_in_which_state_a_key_is(operator, alice):
    claim(alice, "at-work")
    release_claim(claim=claim(alice, "given-back"), now=utc_now())
    answer(alice, "done")
    answer(alice, "old", now=utc_now() - timedelta(days=2))
    page = operator.get(LIST, {"q": "alice"}).content.decode()

    rows = dict(zip(("at-work", "done", "given-back", "old"), page.split("field-state")[1:], strict=True))
    for key, label in {"at-work": "at work", "done": "answered", "given-back": "free again", "old": "over"}.items():
        assert label in rows[key][:1500], key


def test_neither_the_answer_nor_the_proof_of_a_claim_is_shown_or_read(operator, alice):
    record = answer(alice, "a-1")
    for url in (LIST, f"{LIST}{record.pk}/change/"):
        with CaptureQueriesContext(connection) as captured:
            page = operator.get(url)
        assert page.status_code == 200
        assert record.key in page.content.decode()
        assert "private words" not in page.content.decode()
        assert record.token not in page.content.decode()
        reads = [query["sql"] for query in captured if "idempotency_records" in query["sql"]]
        assert reads
        assert not [sql for sql in reads if "body" in sql or "token" in sql]


def test_nothing_can_be_changed(alice):
    client = operator_client(*(f"edge.{verb}_idempotencyrecord" for verb in ("view", "add", "change", "delete")))
    record = answer(alice, "a-1")
    for url in (f"{LIST}add/", f"{LIST}{record.pk}/delete/", f"{LIST}{record.pk}/change/"):
        assert client.post(url, {"key": "b", "post": "yes"}).status_code == 403, url
    assert list(IdempotencyRecord.objects.values_list("key", flat=True)) == ["a-1"]


def test_list_needs_its_permission():
    assert operator_client("accounts.view_user").get(LIST).status_code == 403
