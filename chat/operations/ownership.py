"""Who may write a run: claims, leases and the fence. Every write of an executor goes through `owned`.

Leases are compared by the database's clock, given as `now`: the clocks of two machines are never compared.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, When

from chat.contracts import StartedRun
from chat.models import ChatRun
from outbox.database_errors import repeat_on_conflict
from smartflow.api.rows import RowReader
from smartflow.kernel.errors import Conflict
from smartflow.kernel.text import noop as _

# A run that kills its executor before its first word would otherwise go round for ever.
MOST_ATTEMPTS = 3
# A lease that ends later than any lease that is given now was written by a clock that was ahead: it counts as over.
CLOCK_SLACK_SECONDS = 5.0
SUMMARY_STAGE = "chat"
_OWNED = RowReader(ChatRun, "id = %s AND is_live = 1 AND owner = %s AND epoch = %s", is_locking=True)


class RunNotOwned(Conflict):
    """The run has ended, or another executor has it: this one must not write any more."""

    code = "40911"
    message = _("This answer is being continued elsewhere.")


def owned(*, run: StartedRun) -> QuerySet[ChatRun]:
    """Return the run if it is live and still this owner's by this claim, else nothing."""
    return ChatRun.objects.filter(id=run.run_id, is_live=True, owner=run.owner, epoch=run.epoch)


def lock_owned(*, run: StartedRun) -> ChatRun:
    """Lock the run for the caller's transaction, if it is live and still this owner's. Raises: RunNotOwned."""
    row = _OWNED.find(run.run_id, run.owner, run.epoch)
    if row is None:
        raise RunNotOwned(run_id=run.run_id)
    return row


@dataclass(frozen=True, kw_only=True)
class WaitingRun:
    """A live run without a living owner. `owner` is the dead one's; empty: it never had one, or was given back."""

    run_id: str
    owner: str
    epoch: int
    attempt: int


def abandoned(*, now: datetime) -> Q:
    """Say which live runs have no owner, or one who gave no sign in time."""
    too_late = now + timedelta(seconds=settings.CHAT_RUN_LEASE_SECONDS + CLOCK_SLACK_SECONDS)
    return Q(is_live=True) & (Q(lease_until__lt=now) | Q(lease_until__gt=too_late))


def claimable(*, now: datetime) -> Q:
    """Say which runs may be executed by whoever takes them: without a living owner, and nothing said yet."""
    has_attempts = Q(owner="") | Q(attempt__lt=MOST_ATTEMPTS)
    return abandoned(now=now) & has_attempts & Q(has_spoken=False, stop_requested_at=None)


def list_claimable_runs(*, now: datetime, limit: int) -> list[WaitingRun]:
    """Return runs that wait for an executor, the longest waiting first, through idx_run_live_lease."""
    return list_waiting(runs=ChatRun.objects.filter(claimable(now=now)), limit=limit)


def list_waiting(*, runs: QuerySet[ChatRun], limit: int) -> list[WaitingRun]:
    """Return abandoned runs as plain values, the longest waiting first."""
    rows = runs.order_by("lease_until", "id").values_list("id", "owner", "epoch", "attempt")
    return [WaitingRun(run_id=row[0], owner=row[1], epoch=row[2], attempt=row[3]) for row in rows[:limit]]


def claim_run(*, run_id: str, owner: str, lease_seconds: float, now: datetime) -> StartedRun | None:
    """
    Take a waiting run over; None when another executor was first or it waits no more.

    Transaction: one guarded UPDATE decides, so of two executors one gets the run. A run whose earlier owner died before
                 the first word counts one more attempt, and what the model was asked for by then as lost.
    """

    def claim() -> StartedRun | None:
        with transaction.atomic():
            taken = ChatRun.objects.filter(claimable(now=now), id=run_id).update(
                # before the owner: MySQL reads the columns that it has set already
                attempt=Case(When(owner="", then=F("attempt")), default=F("attempt") + 1),
                # what the last owner asked the model for is paid for when the run ends
                lost_tokens=F("lost_tokens") + F("prompt_tokens"),
                prompt_tokens=0,
                owner=owner,
                epoch=F("epoch") + 1,
                lease_until=now + timedelta(seconds=lease_seconds),
            )
            if not taken:
                return None
            return started_run(run=ChatRun.objects.select_related("chat").get(id=run_id))

    return repeat_on_conflict(claim)


def list_stop_requests(*, owner: str) -> list[str]:
    """Return the owner's runs that somebody asked to stop."""
    asked = ChatRun.objects.filter(is_live=True, owner=owner, stop_requested_at__isnull=False)
    return list(asked.order_by("id").values_list("id", flat=True))


def started_run(*, run: ChatRun) -> StartedRun:
    """Return a run's row, read with its conversation, as an executor gets it."""
    return StartedRun(
        run_id=run.id,
        conversation_id=run.chat_id,
        user_id=run.user_id,
        turn_no=run.turn_no,
        variant_no=run.variant_no,
        kind=run.kind,
        model=run.model,
        thinking=run.thinking,
        message=run.input_text,
        system_prompt=run.chat.system_prompt or "",
        owner=run.owner,
        epoch=run.epoch,
        attempt=run.attempt,
        request_id=run.request_id,
        language=run.language,
        held_tokens=run.held_tokens,
        summary=read_summary(stored=run.chat.compaction_summary),
        summary_covers_turn=run.chat.compaction_watermark,
    )


def read_summary(*, stored: str | None) -> str:
    """Return the summary in a conversation's compaction_summary, "" when there is none; a plain string is one."""
    if not stored:
        return ""
    try:
        return str(json.loads(stored)["stages"][SUMMARY_STAGE]["summary"])
    except (ValueError, KeyError, TypeError):
        return stored
