"""How a row is put into words: its state, ages, error and payload. No queries."""

import json
from datetime import datetime
from typing import Any

from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from outbox.models import OutboxMessage, Status
from smartflow.kernel.durations import compact_duration
from smartflow.kernel.text import bounded

# What operators see is finer than the column: a pending row waits, is held by a relay, or waits for its next try.
STATES: dict[str, Any] = {
    "waiting": _("pending"),
    "claimed": _("claimed"),
    "retrying": _("retrying"),
    "published": _("published"),
    "consumed": _("consumed"),
    "dead": _("dead"),
    "discarded": _("discarded"),
}
STATE_COLOURS = {
    "waiting": "info",
    "claimed": "primary",
    "retrying": "warning",
    "published": "primary",
    "consumed": "success",
    "dead": "danger",
    "discarded": "default",
}
ERROR_EXCERPT_BYTES = 90


def state_of(row: OutboxMessage, *, now: datetime) -> str:
    """Return the name of the row's state, one of STATES."""
    if row.status == Status.DEAD:
        return "discarded" if row.discarded_at else "dead"
    if row.status != Status.PENDING:
        return row.status
    if row.lease_until and row.lease_until > now:
        return "claimed"
    return "retrying" if row.retry_count else "waiting"


def age_of(row: OutboxMessage, *, now: datetime) -> str:
    """Return how long ago the row was written; a pending row has been waiting since then."""
    age = compact_duration((now - row.created_at).total_seconds())
    return str(_("waiting %(age)s") % {"age": age}) if row.status == Status.PENDING else age


def next_try_of(row: OutboxMessage, *, now: datetime) -> str:
    """Return when a pending row is tried again, an empty text for others."""
    if row.status != Status.PENDING:
        return ""
    if row.next_retry_at is None or row.next_retry_at <= now:
        return str(_("now"))
    return str(_("in %(time)s") % {"time": compact_duration((row.next_retry_at - now).total_seconds())})


def error_excerpt(row: OutboxMessage) -> str:
    """Return the first line of the last error, cut."""
    return bounded((row.last_error or "").partition("\n")[0], max_bytes=ERROR_EXCERPT_BYTES)


def preformatted(text: str) -> SafeString:
    """Return text as a block that keeps its line breaks."""
    return format_html('<pre class="font-mono text-xs whitespace-pre-wrap break-all">{}</pre>', text)


def readable_payload(payload: str) -> SafeString:
    """Return the payload indented when it is JSON, else as it is."""
    try:
        return preformatted(json.dumps(json.loads(payload), indent=2, ensure_ascii=False))
    except ValueError:
        return preformatted(payload)


def business_url(row: OutboxMessage) -> str:
    """
    Return the admin page of what the key names, or an empty text.

    A feature offers such a page by naming one of its admin URLs `outbox_key_<first word of its event types>`, with the
    key as the argument; the outbox itself knows no feature.
    """
    try:
        return reverse(f"admin:outbox_key_{row.biz_type.partition('.')[0]}", args=[row.message_key])
    except NoReverseMatch:
        return ""
