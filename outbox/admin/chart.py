"""The chart of the last hour, as points of an SVG that the server draws: it needs no library, no network, no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from outbox.queries import Overview

WIDTH, HEIGHT = 720, 150
# Room for the numbers on the left and the times below; the lines lie between.
LEFT, RIGHT, TOP, BOTTOM = 36, 8, 8, 18
_STEP = (WIDTH - LEFT - RIGHT) / 60
_SERIES: tuple[tuple[str, Any], ...] = (
    ("written", _("written")),
    ("published", _("published")),
    ("consumed", _("handled")),
)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, and how many events it stands for."""

    name: str
    title: Any
    points: str
    total: str


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One minute: where it stands, what its tooltip says, and whether something failed in it."""

    x: str
    width: str
    text: Any
    has_dead: bool
    has_retried: bool


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything the template draws. `grid` and `times` are pairs of a place and a label."""

    series: Sequence[Series]
    slices: Sequence[Slice]
    grid: Sequence[tuple[str, str]]
    times: Sequence[tuple[str, str]]
    area: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    floor: int = HEIGHT - BOTTOM


def chart_of(look: Overview) -> Chart:
    """Return the chart of the last hour, in events a second."""
    top = _round_up(max([1.0, *(value for name, _ in _SERIES for value in _rates(look, name))]))
    series = [
        Series(name=name, title=title, points=_points(_rates(look, name), top), total=f"{look.hour_total(name):,}")
        for name, title in _SERIES
    ]
    floor = HEIGHT - BOTTOM
    return Chart(
        series=series,
        slices=_slices(look),
        grid=[(_y(top * share, top), rate_text(top * share)) for share in (0, 0.5, 1)],
        times=[(_x(number), f"{localtime(look.minutes[number].start):%H:%M}") for number in (0, 15, 30, 45)],
        area=f"{LEFT},{floor} {series[0].points} {WIDTH - RIGHT},{floor}",
    )


def rate_text(rate: float) -> str:
    """Return a rate as people read it: 0, 0.3, 12, 1,200."""
    if rate == 0:
        return "0"
    return f"{rate:.1f}" if rate < 10 else f"{rate:,.0f}"


def _rates(look: Overview, name: str) -> list[float]:
    # The minute that is not over yet would look like a fall.
    return [minute.counts[name] / 60 for minute in look.minutes[:-1]] + [look.rate(name)]


def _round_up(value: float) -> float:
    unit = 10.0 ** (len(str(int(value))) - 1)
    return next(unit * step for step in (1, 2, 5, 10) if unit * step >= value)


def _x(number: float) -> str:
    return f"{LEFT + _STEP * number:.1f}"


def _y(value: float, top: float) -> str:
    floor = HEIGHT - BOTTOM
    return f"{floor - (floor - TOP) * value / top:.1f}"


def _points(rates: Sequence[float], top: float) -> str:
    return " ".join(f"{_x(number)},{_y(rate, top)}" for number, rate in enumerate(rates))


def _slices(look: Overview) -> list[Slice]:
    text = _(
        "%(time)s: written %(written)s, published %(published)s, handled %(consumed)s, "
        "tried again %(retried)s, dead %(dead)s"
    )
    return [
        Slice(
            x=_x(number - 0.5),
            width=f"{_STEP:.1f}",
            text=text % {"time": f"{localtime(minute.start):%H:%M}", **minute.counts},
            has_dead=minute.counts["dead"] > 0,
            has_retried=minute.counts["retried"] > 0,
        )
        for number, minute in enumerate(look.minutes)
    ]
