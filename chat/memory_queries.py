"""Every read of the long-term memory. All take the user's id: what is another user's does not exist here."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta

from django.db.models import Q, QuerySet

from chat.memory_contracts import MemoryFilter, MemoryPage, MemorySwitches, MemoryView
from chat.memory_models import MemoryItem, MemorySettings
from smartflow.kernel.errors import Invalid, NotFound
from smartflow.kernel.text import noop as _

_COLUMNS = tuple(field.name for field in fields(MemoryView))
_SWITCHES = tuple(field.name for field in fields(MemorySwitches))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOST_MICROSECONDS = 2**57


class MemoryNotFound(NotFound):
    """No such item for this user: it never was, or is somebody else's."""

    code = "40055"
    message = _("This memory item does not exist.")


class MemoryCursorInvalid(Invalid):
    """The cursor was not given out by this list."""

    message = _("The cursor does not fit this list. Leave it out to start at the beginning.")


def list_memory_items(*, user_id: int, wanted: MemoryFilter, limit: int, cursor: str = "") -> MemoryPage:
    """
    Return one page of what is wanted of the user's items, the newest first, whatever the switches and lifetimes say.

    Plan:   idx_memory_user_list alone finds, from the cursor on; rows are read of the page only. A filter that few
            items pass reads on until the page is full.
    Raises: MemoryCursorInvalid.
    """
    own = MemoryItem.objects.filter(_wanted(wanted), user_id=user_id)
    if cursor:
        own = own.filter(_behind(cursor))
    ids = list(own.order_by("-created_at", "-id").values_list("pk", flat=True)[: limit + 1])
    rows = MemoryItem.objects.in_bulk(ids[:limit])
    items = [view_of(row=rows[pk]) for pk in ids[:limit] if pk in rows]
    has_more = len(ids) > limit and items
    return MemoryPage(items=items, next_cursor=_cursor_after(items[-1]) if has_more else "")


def get_memory_item(*, user_id: int, item_id: int) -> MemoryView:
    """Return one of the user's items, in whatever state. Raises: MemoryNotFound."""
    row = _own(user_id).filter(pk=item_id).first()
    if row is None:
        raise MemoryNotFound
    return view_of(row=row)


def get_memory_switches(*, user_id: int) -> MemorySwitches:
    """Return how the user's switches stand; who never turned one has the defaults."""
    values = MemorySettings.objects.filter(pk=user_id).values(*_SWITCHES).first()
    return MemorySwitches(**values) if values else MemorySwitches()


def view_of(*, row: MemoryItem) -> MemoryView:
    """Return an item's row as a plain value."""
    return MemoryView(**{name: getattr(row, name) for name in _COLUMNS})


def _own(user_id: int) -> QuerySet[MemoryItem]:
    return MemoryItem.objects.filter(user_id=user_id)


def _wanted(wanted: MemoryFilter) -> Q:
    condition = Q(status__in=wanted.statuses)
    if wanted.memory_types:
        condition &= Q(memory_type__in=wanted.memory_types)
    if wanted.conversation_id:
        condition &= Q(conversation_id=wanted.conversation_id) | Q(conversation_id__isnull=True)
    return condition


def _cursor_after(item: MemoryView) -> str:
    return f"{(item.created_at - _EPOCH) // _MICROSECOND}~{item.id}"


def _behind(cursor: str) -> Q:
    """Return the condition of the rows behind a cursor; its first part is where the database enters the index."""
    micros, separator, last_id = cursor.partition("~")
    if not (separator and _is_number(micros) and _is_number(last_id)):
        raise MemoryCursorInvalid(fields={"cursor": MemoryCursorInvalid.message})
    last = _EPOCH + int(micros) * _MICROSECOND
    return Q(created_at__lte=last) & (Q(created_at__lt=last) | Q(id__lt=int(last_id)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) < _MOST_MICROSECONDS
