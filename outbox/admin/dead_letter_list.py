"""The list of dead letters: its filters, and a page read in bounded steps.

Nothing indexes an error. The page walks the dead rows by id (selection.py) and stops after a while,
with a link to where it stopped: a rare error among a million rows costs clicks, not a scan.
"""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters, ModelAdmin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.contrib.filters.admin import DropdownFilter, TextFilter

from outbox.admin.display import may_read_payload
from outbox.models import OutboxMessage, Status
from outbox.selection import ERROR_LENGTH, STEP, Look, Selection, look_at_dead_letters
from smartflow.api.keyset_admin import AFTER, BEFORE, KeysetChangeList
from smartflow.events import EVENT_TYPES

# Larger: fewer clicks to a rare row, and a slower page.
LOOKED_AT_MOST = 20_000


class DecisionFilter(DropdownFilter):  # type: ignore[misc]
    """Dead letters that still wait for a decision, or those that were given up."""

    title = _("decision")
    parameter_name = "discarded"
    all_option = None

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [("no", _("open")), ("yes", _("discarded"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        if self.value() in {"no", "yes"}:
            return queryset.filter(discarded_at__isnull=self.value() == "no")
        return queryset


class TypeFilter(DropdownFilter):  # type: ignore[misc]
    """By event type."""

    title = _("event type")
    parameter_name = "event_type"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [(event_type, event_type) for event_type in sorted(EVENT_TYPES)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        return queryset.filter(biz_type=self.value()) if self.value() else queryset


class ErrorFilter(TextFilter):  # type: ignore[misc]
    """By how the last error begins."""

    title = _("beginning of the error")
    parameter_name = "error"

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        return queryset  # the walk has seen to it; a search finds few rows


class KeyFilter(TextFilter):  # type: ignore[misc]
    """By key, exact."""

    title = _("key")
    parameter_name = "key"

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        return queryset.filter(message_key=self.value()) if self.value() else queryset


FILTERS = (DecisionFilter, TypeFilter, ErrorFilter, KeyFilter)


def selection_of(*, request: HttpRequest) -> Selection:
    """
    Return the rows that the list's filters, or `ids` as in `?ids=1,2`, mean; a filter means open rows by default.

    Raises: IncorrectLookupParameters; PermissionDenied for a filter that would tell what an error quotes.
    """
    params = request.GET
    if ":" in params.get("error", "") and not may_read_payload(request):
        raise PermissionDenied
    if params.get("ids"):
        return Selection(ids=tuple(sorted({_number(part) for part in params["ids"].split(",")})))
    return Selection(
        event_type=params.get("event_type", ""),
        error=params.get("error", "")[:ERROR_LENGTH],
        key=params.get("key", ""),
        is_discarded=params.get("discarded") == "yes",
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise IncorrectLookupParameters("This is no row.")
    return int(text)


class DeadLetterChangeList(KeysetChangeList):
    """A page of dead letters that fit the filters."""

    is_cut = False  # the walk stopped before the page was full or the end was reached
    verbs: tuple[dict[str, Any], ...] = ()

    def get_results(self, request: HttpRequest) -> None:
        """Walk to the page's rows and read them; a search goes through its own indexes instead."""
        self.verbs = self.model_admin.list_verbs(request, self)
        if self.query:
            super().get_results(request)
            return
        before, after = request.GET.get(BEFORE, ""), request.GET.get(AFTER, "")
        place = _number(before or after) if before or after else None
        ids, look = self._walk(selection_of(request=request), place, is_backwards=bool(before))
        has_more, ids = len(ids) > self.list_per_page, sorted(ids[: self.list_per_page])
        self.is_cut = not has_more and not look.is_end
        first, last = (look.last_id, look.last_id) if not ids else (ids[0], ids[-1])
        if has_more or self.is_cut or before:
            self.next_page = self.get_query_string({AFTER: str(last if has_more or before else look.last_id)})
        if (has_more or self.is_cut) if before else after:
            self.previous_page = self.get_query_string({BEFORE: str(look.last_id if before and self.is_cut else first)})
        # By primary key alone: naming the status too, MariaDB may read and sort every dead row to show fifty.
        rows = self.model._default_manager.filter(pk__in=ids).defer("payload").order_by("pk")
        self._show([row for row in rows if row.status == Status.DEAD])

    def _walk(self, selection: Selection, place: int | None, *, is_backwards: bool) -> tuple[list[int], Look]:
        found: list[int] = []
        looked_at, size = 0, self.list_per_page + 1
        limit = size  # without a filter the first step is the page
        while True:
            look = look_at_dead_letters(
                selection=selection,
                after_id=0 if is_backwards else place or 0,
                before_id=place if is_backwards else None,
                limit=limit,
            )
            found.extend(look.ids)
            looked_at, place, limit = looked_at + look.looked_at, look.last_id, STEP
            if look.is_end or len(found) >= size or looked_at >= LOOKED_AT_MOST:
                return found[:size], look
