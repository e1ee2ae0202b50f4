"""Small tables on admin pages, beside the lists: built in Python, drawn by one template (admin/plain_table.html)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table; the current one is marked."""

    cells: Sequence[Any]
    is_current: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A heading with lines below it; `empty` is what it says without any."""

    heads: Sequence[Any]
    lines: Sequence[Line] = field(default=())
    empty: Any = ""

    @classmethod
    def of(cls, heads: Sequence[Any], rows: Iterable[Sequence[Any]], *, empty: Any = "") -> "Table":
        """Build it from plain rows."""
        return cls(heads=heads, lines=[Line(cells=cells) for cells in rows], empty=empty)


def link(url: str, text: Any) -> SafeString:
    """Return a link in the admin's colours."""
    return format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>', url, text)
