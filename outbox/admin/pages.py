"""What the page of a row and the page of a key show; the reads are outbox/queries."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from outbox import queries
from outbox.admin import display as words
from outbox.admin.story import story_of
from outbox.models import OutboxMessage, Status
from outbox.queries import KeyStanding
from outbox.registry import blocking_types
from smartflow.api.admin_table import Line, Table, link
from smartflow.api.keyset_admin import AFTER, BEFORE, coloured_label, one_line

NEIGHBOURS = 10
KEY_ROWS = 50
VIEW_ACTIONS = "outbox.view_operatoraction"
_VERBS: tuple[tuple[str, Any, str], ...] = (
    ("requeue", _("Requeue …"), "outbox.requeue_outboxmessage"),
    ("discard", _("Discard …"), "outbox.discard_outboxmessage"),
)


def row_page(row: OutboxMessage, *, request: HttpRequest, now: datetime) -> dict[str, Any]:
    """Return the template's context of a row's page: its state in words, its story, its neighbours."""
    standing = queries.get_key_standing(key=row.message_key) if row.status == Status.PENDING else None
    neighbours = queries.list_neighbours(key=row.message_key, message_id=row.pk, limit=NEIGHBOURS)
    return {
        "row": row,
        "sentence": words.sentence_of(row, standing=standing, now=now),
        "tone": _tone(row, now=now),
        "story": story_of(
            row,
            attempts=queries.list_attempts(message_id=row.pk),
            actions=queries.list_actions_on(row=row),
            may_see_actions=request.user.has_perm(VIEW_ACTIONS),
            may_read_errors=words.may_read_payload(request),
        ),
        "links": [*_ways_out(row, standing), *verbs_for(row, request=request)],
        "neighbours": table_of(neighbours, current=row.pk, now=now),
        "key_url": words.key_url(row.message_key),
    }


def _tone(row: OutboxMessage, *, now: datetime) -> str:
    state = words.state_of(row, now=now)
    return {"dead": "bad", "held": "bad", "waiting": "late", "retrying": "late", "consumed": "good"}.get(state, "calm")


def _ways_out(row: OutboxMessage, standing: KeyStanding | None) -> list[dict[str, Any]]:
    """Return the page to open next for a row that waits for another, or for a type that goes on."""
    if standing is None or standing.head is None:
        return []
    if standing.pause is not None and row.ready_shard is None:
        return [{"url": reverse("admin:outbox_event_types"), "text": _("Open the paused event types")}]
    if standing.head.pk < row.pk:
        text = _("Open row #%(head)s, which it waits for") % {"head": standing.head.pk}
        return [{"url": words.row_url(standing.head.pk), "text": text}]
    return []


def verbs_for(row: OutboxMessage, *, request: HttpRequest) -> list[dict[str, Any]]:
    """Return the verbs that the operator may use on a dead letter."""
    if row.status != Status.DEAD:
        return []
    return [
        {"url": f"{reverse(f'admin:outbox_deadletter_{name}')}?ids={row.pk}", "text": text, "is_verb": True}
        for name, text, permission in _VERBS
        if request.user.has_perm(permission) and not (name == "discard" and row.discarded_at)
    ]


def key_page(*, request: HttpRequest, now: datetime) -> dict[str, Any]:
    """Return the template's context of a key's page: what it waits for, and a page of its rows in their order."""
    key = request.GET.get("key", "")
    standing = queries.get_key_standing(key=key)
    ids, has_earlier, has_later = _page_of_ids(key, request)
    rows = queries.list_rows(ids=ids)
    current = standing.head.pk if standing.head else None
    return {
        "title": _("Key %(key)s") % {"key": key},
        "key": key,
        "standing": standing,
        "is_blocked": _is_blocked(standing),
        "sentence": _key_sentence(standing, now=now),
        "head_error": _head_error(standing, request),
        "links": _links_of(standing, rows, request),
        "table": table_of(rows, current=current, now=now, empty=_("No event has this key.")),
        "earlier_url": _place(key, BEFORE, ids[0]) if has_earlier else "",
        "later_url": _place(key, AFTER, ids[-1]) if has_later else "",
        "newest_url": words.key_url(key),
    }


def _head_error(standing: KeyStanding, request: HttpRequest) -> str:
    head = standing.head
    return words.error_excerpt(head, is_whole=words.may_read_payload(request)) if head else ""


def _page_of_ids(key: str, request: HttpRequest) -> tuple[list[int], bool, bool]:
    """Return a page's ids, oldest first, and whether there are earlier and later ones. Without a place: the newest."""
    before, after = (_number(request.GET.get(name, "")) for name in (BEFORE, AFTER))
    everything: dict[str, Any] = {"key": key, "statuses": Status.values, "limit": KEY_ROWS + 1}
    if after is not None:
        ids = queries.list_key_ids(newer_than=after, **everything)
        return ids[:KEY_ROWS], bool(ids), len(ids) > KEY_ROWS
    ids = queries.list_key_ids(older_than=before, **everything)
    return sorted(ids[:KEY_ROWS]), len(ids) > KEY_ROWS, before is not None and bool(ids)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _place(key: str, name: str, row_id: int) -> str:
    return f"{reverse('admin:outbox_key')}?{urlencode({'key': key, name: row_id})}"


def _is_blocked(standing: KeyStanding) -> bool:
    head = standing.head
    if head is None:
        return False
    is_open = head.status == Status.DEAD and head.discarded_at is None and head.biz_type in blocking_types()
    return is_open or standing.pause is not None


def _key_sentence(standing: KeyStanding, *, now: datetime) -> Any:
    head = standing.head
    if head is None:
        return _("Nothing waits here: every event of the key is published, handled or decided about.")
    parts = {"head": head.pk, "type": head.biz_type, "count": standing.behind}
    if standing.pause is not None:
        return _("The event type %(type)s is paused; row #%(head)s and %(count)s events behind it wait.") % parts
    if _is_blocked(standing):
        return _("Blocked by row #%(head)s, a dead letter (%(type)s); %(count)s events wait behind it.") % parts
    parts["state"] = words.STATES[words.state_of(head, now=now)]
    return _("Next is row #%(head)s (%(state)s); %(count)s events stand behind it.") % parts


def _links_of(standing: KeyStanding, rows: list[OutboxMessage], request: HttpRequest) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = []
    if standing.pause is not None:
        links.append({"url": reverse("admin:outbox_event_types"), "text": _("Open the paused event types")})
    if standing.head is not None:
        links.append({"url": words.row_url(standing.head.pk), "text": _("Open row #%(id)s") % {"id": standing.head.pk}})
        links.extend(verbs_for(standing.head, request=request))
    business_url = words.business_url(rows[0]) if rows else ""
    if business_url:
        links.append({"url": business_url, "text": _("Open what the key names")})
    return links


def table_of(rows: list[OutboxMessage], *, current: int | None, now: datetime, empty: Any = "") -> Table:
    """Return rows of one key as a table, the current one marked."""
    heads = (_("row"), _("state"), _("event type"), _("age"), _("attempts"), _("written"))
    return Table(heads=heads, lines=[_line(row, row.pk == current, now) for row in rows], empty=empty)


def _line(row: OutboxMessage, is_current: bool, now: datetime) -> Line:
    name = words.state_of(row, now=now)
    cells = (
        link(words.row_url(row.pk), f"#{row.pk}"),
        coloured_label(words.STATES[name], words.STATE_COLOURS[name]),
        row.biz_type,
        one_line(words.age_of(row, now=now)),
        one_line(f"{row.retry_count} / {row.max_retry}"),
        one_line(f"{localtime(row.created_at):%Y-%m-%d %H:%M:%S.%f}"),
    )
    return Line(cells=cells, is_current=is_current)
