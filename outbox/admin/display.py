"""How a row is put into words: its state, ages, error and payload. No queries."""

import json
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from outbox.models import OutboxMessage, Status
from outbox.queries import KeyStanding, kind_of_error
from outbox.registry import blocking_types
from smartflow.kernel.durations import compact_duration
from smartflow.kernel.text import bounded

# What operators see is finer than the column: see the states of a pending row in outbox/models.py.
STATES: dict[str, Any] = {
    "ready": _("ready"),
    "in_flight": _("in flight"),
    "waiting": _("waiting"),
    "retrying": _("retrying"),
    "held": _("held"),
    "published": _("published"),
    "consumed": _("consumed"),
    "dead": _("dead"),
    "discarded": _("discarded"),
}
STATE_COLOURS = {
    "ready": "info",
    "in_flight": "primary",
    "waiting": "warning",
    "retrying": "warning",
    "held": "danger",
    "published": "primary",
    "consumed": "success",
    "dead": "danger",
    "discarded": "default",
}
ERROR_EXCERPT_BYTES = 90
VIEW_PAYLOAD = "outbox.view_payload"


def state_of(row: OutboxMessage, *, now: datetime) -> str:
    """Return the name of the row's state, one of STATES."""
    if row.status == Status.DEAD:
        return "discarded" if row.discarded_at else "dead"
    if row.status != Status.PENDING:
        return row.status
    if row.next_retry_at is not None:
        return "retrying" if row.retry_count else "waiting"
    if row.ready_shard is None:
        return "held"
    return "in_flight" if row.lease_until and row.lease_until > now else "ready"


def sentence_of(row: OutboxMessage, *, standing: KeyStanding | None, now: datetime) -> Any:
    """Return what the row's state means and what happens next; `standing` is its key's, for a pending row."""
    if row.status == Status.PENDING:
        return _pending_sentence(row, standing, now)
    if row.status == Status.PUBLISHED:
        return _("Published; no consumer has handled it yet.")
    if row.status == Status.CONSUMED:
        took = compact_duration((row.consumed_at - row.created_at).total_seconds()) if row.consumed_at else "-"
        return _("Handled, %(time)s after it was written.") % {"time": took}
    if row.discarded_at:
        return _("Given up by an operator: what it asked for does not happen.")
    if row.biz_type in blocking_types():
        return _("Dead, and later events of its key wait behind it: requeue or discard it.")
    return _("Dead; later events of its key go on without it. Requeue or discard it.")


def _pending_sentence(row: OutboxMessage, standing: KeyStanding | None, now: datetime) -> Any:
    state, head = state_of(row, now=now), standing.head if standing else None
    if state == "in_flight":
        seconds = max(0, round((row.lease_until - now).total_seconds())) if row.lease_until else 0
        return _("A relay is publishing it, and has it for another %(seconds)s seconds.") % {"seconds": seconds}
    if state == "held":
        return _held_sentence(row, standing)
    if state in ("waiting", "retrying"):
        if head is not None and head.pk < row.pk:
            return _("Waits %(when)s, behind row #%(head)s of its key.") % {
                "when": next_try_of(row, now=now),
                "head": head.pk,
            }
        return _("Waits for its next try %(when)s.") % {"when": next_try_of(row, now=now)}
    if row.lease_until:
        return _("A relay had it and was not heard of again: the next claim takes it over.")
    return _("Ready: the next claim of a relay takes it.")


def _held_sentence(row: OutboxMessage, standing: KeyStanding | None) -> Any:
    head = standing.head if standing else None
    if standing is None or head is None:
        return _("Held; nothing holds it any more: a relay lets it go within a second or two.")
    if standing.pause is not None:
        return _("Held: the event type %(type)s is paused (%(reason)s).") % {
            "type": head.biz_type,
            "reason": standing.pause.reason,
        }
    if head.pk != row.pk and head.status == Status.DEAD and head.discarded_at is None:
        return _("Held behind row #%(head)s, a dead letter that blocks its key.") % {"head": head.pk}
    return _("Held; nothing holds it any more: a relay lets it go within a second or two.")


def age_of(row: OutboxMessage, *, now: datetime) -> str:
    """Return how long ago the row was written; a pending row has been waiting since then."""
    age = compact_duration((now - row.created_at).total_seconds())
    return str(_("waiting %(age)s") % {"age": age}) if row.status == Status.PENDING else age


def next_try_of(row: OutboxMessage, *, now: datetime) -> str:
    """Return when a pending row is tried again, an empty text for others."""
    if row.status != Status.PENDING or state_of(row, now=now) == "held":
        return ""
    if row.next_retry_at is None or row.next_retry_at <= now:
        return str(_("now"))
    return str(_("in %(time)s") % {"time": compact_duration((row.next_retry_at - now).total_seconds())})


def may_read_payload(request: HttpRequest) -> bool:
    """Tell whether whoever asks may see what events hold, which the words of an error may quote."""
    return request.user.has_perm(VIEW_PAYLOAD)


def error_excerpt(row: OutboxMessage, *, is_whole: bool) -> str:
    """Return the first line of the last error, cut; its kind alone for whoever may not read payloads."""
    error = row.last_error if is_whole else kind_of_error(error=row.last_error)
    return bounded((error or "").partition("\n")[0], max_bytes=ERROR_EXCERPT_BYTES)


def preformatted(text: str) -> SafeString:
    """Return text as a block that keeps its line breaks."""
    return format_html('<pre class="font-mono text-xs whitespace-pre-wrap break-all">{}</pre>', text)


def readable_payload(payload: str) -> SafeString:
    """Return the payload indented when it is JSON, else as it is."""
    try:
        return preformatted(json.dumps(json.loads(payload), indent=2, ensure_ascii=False))
    except ValueError:
        return preformatted(payload)


def key_url(key: str) -> str:
    """Return the page of a key."""
    return f"{reverse('admin:outbox_key')}?{urlencode({'key': key})}"


def row_url(row_id: int) -> str:
    """Return the page of a row."""
    return reverse("admin:outbox_outboxmessage_change", args=[row_id])


def search_url(term: str) -> str:
    """Return the list of the rows that a search finds."""
    return f"{reverse('admin:outbox_outboxmessage_changelist')}?{urlencode({'q': term})}"


def business_url(row: OutboxMessage) -> str:
    """
    Return the admin page of what the key names, or an empty text.

    A feature offers such a page by naming one of its admin URLs `outbox_key_<first word of its event types>`, with the
    key as the argument; the outbox itself knows no feature.
    """
    return _feature_url("outbox_key", row, row.message_key)


def effect_url(row: OutboxMessage) -> str:
    """
    Return the admin page of what handling the event made, or an empty text.

    Offered as business_url's, named `outbox_event_<first word of its event types>`, with the event's id.
    """
    return _feature_url("outbox_event", row, row.event_id) if row.status == Status.CONSUMED else ""


def _feature_url(name: str, row: OutboxMessage, argument: str) -> str:
    try:
        return reverse(f"admin:{name}_{row.biz_type.partition('.')[0]}", args=[argument])
    except NoReverseMatch:
        return ""
