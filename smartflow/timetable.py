"""Every periodic job: its name, its period in seconds or its time of day, and for how long a tick is worth running.

A tick that waited longer than `expires` in the broker is dropped: the next one does the same work, and a worker that
was away must not find a thousand of them. A worker compares the moment with its own clock.
"""

from datetime import time
from typing import Any

# Larger bears more skew between beat's clock and a worker's, and more ticks pile up for a worker that was away.
SHORTEST_EXPIRY_SECONDS = 60.0


def _every(seconds: float, job: str) -> dict[str, Any]:
    return {"task": job, "schedule": seconds, "options": {"expires": max(seconds, SHORTEST_EXPIRY_SECONDS)}}


def _nightly(at: time, job: str) -> dict[str, Any]:
    return {"task": job, "schedule": at, "options": {"expires": 3600.0}}


TIMETABLE: dict[str, dict[str, Any]] = {
    "relay": _every(1.0, "outbox.jobs.run_relay_pass"),
    "rescan": _every(5.0, "outbox.jobs.rescan_published"),
    "prune": _every(60.0, "outbox.jobs.prune_consumed"),
    "operators": _every(1.0, "outbox.jobs.run_operator_actions"),
    "end-orphaned-runs": _every(3.0, "chat.jobs.end_orphaned_runs"),
    "make-titles": _every(2.0, "chat.jobs.make_titles"),
    "promote-due-tasks": _every(30.0, "tasks.jobs.promote_due_tasks"),
    "tell-due-soon": _every(30.0, "tasks.jobs.tell_due_soon"),
    "prune-deleted-tasks": _every(3600.0, "tasks.jobs.prune_deleted_tasks"),
    "release-expired-holds": _every(30.0, "smartflow.accounts.jobs.release_expired_holds"),
    "check-ledger": _nightly(time(3, 30), "chat.jobs.check_ledger"),  # the installation's time
    "prune-idempotency-records": _every(60.0, "smartflow.api.jobs.prune_idempotency_records"),
    "prune-sessions": _every(3600.0, "smartflow.accounts.jobs.prune_sessions"),
}
