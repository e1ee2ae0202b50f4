"""Admin lists of big tables: pages by key instead of by number, nothing counted, searched through indexes only.

Django's changelist counts the table twice and reads every earlier page to reach a later one; at ten million rows it
stands still. These lists read `list_per_page + 1` rows beyond the last key they showed. Every app's admin.py builds on
them; they know no model.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar, cast

from django.contrib.admin import ShowFacets
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.views import ChangeList

AFTER = "after"  # the page that follows this key in the list's order
BEFORE = "before"  # the page that precedes it
_SEPARATOR = "~"
_Method = TypeVar("_Method", bound=Callable[..., Any])


def column(*, description: Any) -> Callable[[_Method], _Method]:
    """Mark a method as a column (unfold's `display`, typed)."""
    return cast(Callable[[_Method], _Method], display(description=description))


def coloured_label(text: Any, colour: str) -> str:
    """Return unfold's label; unfold itself makes one in lists only, and a row's page needs it too."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": colour})


def one_line(text: Any, *, short: str = "") -> SafeString:
    """Return text that a narrow column does not break; shortened, the whole stands in its tooltip."""
    return format_html('<span class="whitespace-nowrap" title="{}">{}</span>', text, short or text)


def short_id(identifier: str) -> SafeString:
    """Return the first characters of a UUID; the whole stands in its tooltip."""
    return one_line(identifier, short=identifier[:8] + "…")


def operator_action(*, description: Any, permissions: Sequence[str]) -> Callable[[_Method], _Method]:
    """Mark a method as an action on ticked rows (unfold's `action`, typed), run only with the permissions."""
    return cast(Callable[[_Method], _Method], action(description=description, permissions=permissions))


class Keyset:
    """The order of a list: fields that together are unique and that one index holds, all in one direction."""

    def __init__(self, model: type[Model], fields: Sequence[str]) -> None:
        if len({name.startswith("-") for name in fields}) != 1:
            raise ValueError("A keyset runs in one direction.")
        self.is_descending = fields[0].startswith("-")
        self._fields = [model._meta.get_field(name.lstrip("-")) for name in fields]

    def cursor_of(self, row: Model) -> str:
        """Return the row's place in the list as text for a URL."""
        return _SEPARATOR.join(field.value_to_string(row) for field in self._fields)  # type: ignore[union-attr]

    def beyond(self, cursor: str, *, is_backwards: bool) -> Q:
        """Return the condition of the rows that come after the cursor, or before it when reading backwards."""
        parts = cursor.split(_SEPARATOR)
        if len(parts) != len(self._fields):
            raise IncorrectLookupParameters("The cursor does not fit this list.")
        try:
            values = [field.to_python(part) for field, part in zip(self._fields, parts, strict=True)]  # type: ignore[union-attr]
        except ValidationError as error:
            raise IncorrectLookupParameters("The cursor does not fit this list.") from error
        names = [field.attname for field in self._fields]  # type: ignore[union-attr]
        operator = "gt" if self.is_descending == is_backwards else "lt"
        # The redundant first condition is what lets the database enter its index at the right place.
        condition = Q()
        for position in range(len(names)):
            equal = dict(zip(names[:position], values[:position], strict=True))
            condition |= Q(**equal, **{f"{names[position]}__{operator}": values[position]})
        return Q(**{f"{names[0]}__{operator}e": values[0]}) & condition


class KeysetPaginator(Paginator):  # type: ignore[type-arg]
    """Holds the one page that was read; its template links to the neighbouring pages."""

    template_name = "admin/keyset_pagination.html"


class KeysetChangeList(ChangeList):  # type: ignore[misc]
    """A changelist that reads one page by key."""

    next_page = ""
    previous_page = ""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Model]:
        """Keep the cursor out of the filters, and out of their links: a new filter starts at the first page."""
        for params in (self.params, self.filter_params):
            params.pop(AFTER, None)
            params.pop(BEFORE, None)
        queryset: QuerySet[Model] = super().get_queryset(request, exclude_parameters)
        return queryset

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Model]) -> list[str]:
        """Return the keyset; an order from the URL would sort the table."""
        return list(self.model_admin.get_keyset(request))

    def get_ordering_field_columns(self) -> dict[int, str]:
        """Show no column as sortable."""
        return {}

    def get_results(self, request: HttpRequest) -> None:
        """Read one row more than the page holds: it tells whether there is another page."""
        size = self.list_per_page
        keyset = Keyset(self.model, self.model_admin.get_keyset(request))
        before, after = request.GET.get(BEFORE), request.GET.get(AFTER)
        queryset = self.queryset
        if before or after:
            queryset = queryset.filter(keyset.beyond(before or after or "", is_backwards=bool(before)))
        rows = list((queryset.reverse() if before else queryset)[: size + 1])
        has_more, rows = len(rows) > size, rows[:size]
        if before:
            rows.reverse()
        if rows and (has_more or before):
            self.next_page = self.get_query_string({AFTER: keyset.cursor_of(rows[-1])})
        if rows and (has_more if before else after):
            self.previous_page = self.get_query_string({BEFORE: keyset.cursor_of(rows[0])})
        if not rows and (before or after):
            self.previous_page = self.get_query_string()
        self._show(rows)

    def _show(self, rows: list[Model]) -> None:
        self.result_list = rows
        self.result_count = len(rows)
        # Equal to result_count, because unfold would call the page's length the number of results.
        self.full_result_count = len(rows)
        self.show_full_result_count = False
        self.show_admin_actions = True
        self.can_show_all = False
        self.multi_page = False
        self.page_num = 1
        self.paginator = KeysetPaginator(rows, self.list_per_page)


class KeysetAdmin(ModelAdmin):  # type: ignore[misc]
    """
    An admin of a big table.

    `keyset` is the order of the list. `search_fields` only makes Django show the search box: `find` does the search,
    through indexes. A URL may filter by the declared filters and by nothing else.
    """

    keyset: ClassVar[tuple[str, ...]] = ("-pk",)
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = ShowFacets.NEVER  # counts every choice of every filter over the whole table
    list_disable_select_all = True
    sortable_by: Sequence[str] = ()
    actions_selection_counter = True
    list_filter_sheet = False

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the order of this list, the same for every page of it."""
        return tuple(name.replace("pk", self.model._meta.pk.name) for name in self.keyset)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        return KeysetChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse Django's free lookups: they scan the table, and they let masked text be guessed letter by letter."""
        return lookup in {getattr(spec, "parameter_name", None) for spec in self.get_list_filter(request)}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (self.find(request, queryset, term) if term else queryset), False

    def find(self, request: HttpRequest, queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the rows that carry exactly this term in an indexed column."""
        raise NotImplementedError


class ReadOnlyKeysetAdmin(KeysetAdmin):
    """An admin that shows rows and changes none; what operators may do to them are actions with own permissions."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
