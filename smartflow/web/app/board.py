"""The four quadrants as the page shows them: bounded reads, in the order and the words of a person.

Open tasks come by deadline, completed ones behind them, each quadrant up to a length that "show more" raises.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from smartflow.accounts.contracts import AuthenticatedUser
from tasks.contracts import Page, Quadrant, Sort, TaskFilter, TaskView
from tasks.operations import show_page
from tasks.queries import count_open, find_next_shift, find_revision

# Open tasks of a quadrant at first, and how many "show more" adds.
SHOWN = 50
# A page of more is no page; the API lists the rest.
MOST_SHOWN = 1_000
COMPLETED_SHOWN = 10
MOST_COUNTED = 999
# A timer of a browser ends early beyond its 2**31 milliseconds.
LONGEST_WAIT = timedelta(days=1)

_TITLES: dict[Quadrant, tuple[str, Promise, Promise, Promise]] = {
    Quadrant.URGENT: (
        "red",
        _("Important and urgent"),
        _("Do it now"),
        _("Nothing presses. Enjoy it, or look ahead to what is important."),
    ),
    Quadrant.IMPORTANT: (
        "blue",
        _("Important, not urgent"),
        _("Plan it"),
        _("What matters in the long run belongs here: add the first one."),
    ),
    Quadrant.SIMPLE: (
        "yellow",
        _("Easy and unimportant"),
        _("Do it in between"),
        _("No small things waiting. Good."),
    ),
    Quadrant.COMPLEX: (
        "grey",
        _("Hard and unimportant"),
        _("Think twice"),
        _("Nothing here, and that is fine: this can usually wait."),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One task in the page's words."""

    id: int
    title: str
    quadrant: int
    is_completed: bool
    is_overdue: bool
    sections: int
    deadline_at: datetime | None
    deadline_text: str
    deadline_input: str

    @property
    def version(self) -> str:
        """What differs when the row must be drawn anew."""
        return f"{zlib.crc32(repr(self).encode()):08x}"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One quadrant."""

    quadrant: int
    colour: str
    title: str | Promise
    advice: str | Promise
    empty_text: str | Promise
    rows: tuple[Row, ...]
    open_count: int
    shown: int
    has_more: bool

    @property
    def count_text(self) -> str:
        """How many are open; beyond what is counted, a bound."""
        return f"{MOST_COUNTED}+" if self.open_count > MOST_COUNTED else str(self.open_count)

    @property
    def more(self) -> int:
        """How many to show once more are wanted."""
        return min(self.shown + SHOWN, MOST_SHOWN)


@dataclass(frozen=True, kw_only=True)
class Board:
    """All four, as they were at one revision or a later one."""

    revision: str
    cards: tuple[Card, ...]
    # When it looks different though nobody wrote: a threshold passes, a deadline passes, a day ends.
    next_change_ms: int


def read_board(*, user: AuthenticatedUser, shown: Mapping[int, int], now: datetime) -> Board:
    """
    Return the user's board for `now`.

    Transaction: none; the revision is read first, so that a change that comes in between is told of again. Two bounded
                 queries a quadrant, one more for each that is longer than what is shown.
    """
    revision = find_revision(user_id=user.user_id)
    zone = ZoneInfo(user.time_zone)
    cards = tuple(_read_card(user, quadrant, shown.get(quadrant, SHOWN), zone, now) for quadrant in Quadrant)
    moments = [find_next_shift(user_id=user.user_id, now=now), _next_midnight(zone, now)]
    moments += [row.deadline_at for card in cards for row in card.rows if not row.is_completed]
    wait = min([LONGEST_WAIT, *(moment - now for moment in moments if moment is not None and moment > now)])
    # a moment later, so that what is asked for then is past its moment
    return Board(revision=revision, cards=cards, next_change_ms=int(wait.total_seconds() * 1000) + 250)


def read_shown(values: Mapping[str, str]) -> dict[int, int]:
    """Return how many tasks of each quadrant the page shows; what is no such number counts as absent."""
    shown = {}
    for quadrant in Quadrant:
        text = values.get(f"shown_{int(quadrant)}", "")
        if text.isascii() and text.isdigit() and len(text) <= 6:
            shown[int(quadrant)] = min(max(int(text), SHOWN), MOST_SHOWN)
    return shown


def row_of(task: TaskView, *, zone: ZoneInfo, now: datetime) -> Row:
    """Return a task in the page's words."""
    row = task.row
    local = row.deadline_at.astimezone(zone) if row.deadline_at else None
    return Row(
        id=row.id,
        title=row.title,
        quadrant=task.priority,
        is_completed=row.is_completed,
        is_overdue=not row.is_completed and row.deadline_at is not None and row.deadline_at <= now,
        sections=row.estimated_sections,
        deadline_at=row.deadline_at,
        deadline_text=_moment_text(local, now.astimezone(zone)) if local else "",
        deadline_input=input_text(local),
    )


def input_text(local: datetime | None) -> str:
    """Return a local moment as a browser's field for one has it."""
    if local is None:
        return ""
    return local.strftime("%Y-%m-%dT%H:%M:%S" if local.second else "%Y-%m-%dT%H:%M")


def today_text(*, zone: ZoneInfo, now: datetime) -> str:
    """Return the day for the page's top."""
    return date_format(now.astimezone(zone), gettext("l, j F"))


def _read_card(user: AuthenticatedUser, quadrant: Quadrant, shown: int, zone: ZoneInfo, now: datetime) -> Card:
    open_page = show_page(
        user_id=user.user_id,
        wanted=TaskFilter(quadrant=quadrant, is_completed=False),
        page=Page(sort=Sort.DEADLINE, limit=shown),
        now=now,
    )
    completed = show_page(
        user_id=user.user_id,
        wanted=TaskFilter(quadrant=quadrant, is_completed=True),
        page=Page(sort=Sort.NEWEST, limit=COMPLETED_SHOWN),
        now=now,
    )
    count = len(open_page.tasks)
    has_more = bool(open_page.next_cursor)
    if has_more:
        count = count_open(user_id=user.user_id, quadrant=quadrant, now=now, most=MOST_COUNTED + 1)
    colour, title, advice, empty_text = _TITLES[quadrant]
    return Card(
        quadrant=int(quadrant),
        colour=colour,
        title=title,
        advice=advice,
        empty_text=empty_text,
        rows=_rows([*open_page.tasks, *completed.tasks], zone, now),
        open_count=count,
        shown=shown,
        has_more=has_more and shown < MOST_SHOWN,
    )


def _rows(tasks: Iterable[TaskView], zone: ZoneInfo, now: datetime) -> tuple[Row, ...]:
    return tuple(row_of(task, zone=zone, now=now) for task in tasks)


def _next_midnight(zone: ZoneInfo, now: datetime) -> datetime:
    """Return when the words "today" and "tomorrow" change their meaning."""
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).astimezone(UTC)


def _moment_text(local: datetime, now: datetime) -> str:
    clock = date_format(local, "H:i")
    days = (local.date() - now.date()).days
    if days in {-1, 0, 1}:
        named = {-1: gettext("Yesterday %(clock)s"), 0: gettext("Today %(clock)s"), 1: gettext("Tomorrow %(clock)s")}
        return named[days] % {"clock": clock}
    if local.year == now.year:
        return date_format(local, gettext("D j M, H:i"))
    return date_format(local, gettext("j M Y, H:i"))
