"""The life of an idempotency key: claimed, answered, replayed, forgotten. Called by IdempotentView and by the jobs.

The token fences: whoever lost the claim to a successor can change nothing any more. So the clocks of the web processes
need not agree: a lease that seems over too early costs work that is rolled back, and no second effect.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError
from django.db.models import Q, QuerySet

from smartflow.api.models import IdempotencyRecord
from smartflow.api.rows import RowReader, execute, insert_row
from smartflow.kernel.errors import Conflict, Invalid
from smartflow.kernel.ids import new_uuid
from smartflow.kernel.text import noop as _

KEPT = timedelta(hours=24)
_RECORD = RowReader(IdempotencyRecord, "user_id = %s AND `key` = %s")
_STORE = "UPDATE idempotency_records SET status = %s, body = %s WHERE id = %s AND token = %s AND status IS NULL"
# What a duplicate is told to wait: most requests take far less, and asking again is cheap.
RETRY_AFTER_SECONDS = 1


class StillInProgress(Conflict):
    """Another request with this key is at work."""

    code = "40038"
    message = _("The same request is still in progress.")


class KeyReused(Invalid):
    """The key belongs to another request: other method, path or body."""

    code = "42200"
    message = _("This X-Idempotency-Key was used for another request. Send a new key with a new request.")


class ClaimLost(Exception):
    """The lease ran out and another request took over: what this one did must be rolled back."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer a key, proved by the token."""

    record_id: int
    token: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What the first request was answered."""

    status: int
    body: str


def claim_key(*, user_id: int, key: str, fingerprint: str, now: datetime) -> Claim | StoredAnswer:
    """
    Claim a key, or return the answer that it has already.

    Transaction: none; the claim is one statement, so that others see it before the work begins.
    Twice:       of two at once one gets the claim.
    Raises:      StillInProgress 40038; KeyReused 42200.
    """
    record = _find(user_id, key)
    if record is None:
        claim = _insert(user_id, key, fingerprint, now)
        if claim is not None:
            return claim
        record = _find(user_id, key)
    if record is None:
        raise StillInProgress(retry_after_seconds=RETRY_AFTER_SECONDS)  # pruned in this very moment
    if record.expires_at > now:
        if record.fingerprint != fingerprint:
            raise KeyReused(fields={"X-Idempotency-Key": KeyReused.message})
        if record.status is not None:
            return StoredAnswer(record.status, record.body)
        if record.lease_until > now:
            raise StillInProgress(retry_after_seconds=RETRY_AFTER_SECONDS)
    return _take_over(record, fingerprint, now)


def store_answer(*, claim: Claim, status: int, body: str) -> None:
    """
    Keep the answer of a claimed key.

    Transaction: the caller's, the one of the effect; so there is never one without the other.
    Raises:      ClaimLost when a successor has the claim; the caller rolls back.
    """
    if not execute(_STORE, status, body, claim.record_id, claim.token):
        raise ClaimLost


def release_claim(*, claim: Claim, now: datetime) -> None:
    """
    Let the next request with this key work at once. Nothing happens when it is answered or a successor's.

    The row stays: deleting it while others insert the same key is what lets MariaDB choose a loser.
    """
    _claimed(claim).update(lease_until=now)


def prune_records(*, now: datetime, limit: int = 1000) -> int:
    """Delete up to `limit` expired records and return how many were found."""
    found = list(IdempotencyRecord.objects.filter(expires_at__lte=now).values_list("pk", flat=True)[:limit])
    # By key and once more by time: one of them may be somebody's claim again.
    IdempotencyRecord.objects.filter(pk__in=found, expires_at__lte=now).delete()
    return len(found)


def _find(user_id: int, key: str) -> IdempotencyRecord | None:
    return _RECORD.find(user_id, key)


def _lease_end(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.IDEMPOTENCY_LEASE_SECONDS)


def _claimed(claim: Claim) -> QuerySet[IdempotencyRecord]:
    return IdempotencyRecord.objects.filter(pk=claim.record_id, token=claim.token, status=None)


def _insert(user_id: int, key: str, fingerprint: str, now: datetime) -> Claim | None:
    token = new_uuid()
    try:
        record_id = insert_row(
            IdempotencyRecord,
            user_id=user_id,
            key=key,
            fingerprint=fingerprint,
            token=token,
            lease_until=_lease_end(now),
            expires_at=now + KEPT,
        )
    except IntegrityError:
        return None
    return Claim(record_id, token)


def _take_over(record: IdempotencyRecord, fingerprint: str, now: datetime) -> Claim:
    """Claim a key whose owner died or whose day is over; of several at once one does."""
    is_over = Q(expires_at__lte=now) | Q(status=None, lease_until__lte=now)
    token = new_uuid()
    taken = IdempotencyRecord.objects.filter(is_over, pk=record.pk, token=record.token).update(
        fingerprint=fingerprint,
        token=token,
        lease_until=_lease_end(now),
        expires_at=now + KEPT,
        status=None,
        body="",
    )
    if not taken:
        raise StillInProgress(retry_after_seconds=RETRY_AFTER_SECONDS)
    return Claim(record.pk, token)
