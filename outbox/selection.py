"""Which dead letters an operator means: some by their ids, or all that fit a filter; reads them in bounded steps.

Nothing indexes an error or a moment, so dead rows, or those of a key, are walked in the order of id, a step at a time,
and looked at here. Open ones are found by type, so that no number of discarded ones lies in between. Called by the
operators' verbs and their pages; changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import nlargest, nsmallest
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Left

from outbox.models import OutboxMessage, Status
from outbox.queries import list_overtaken_ids
from outbox.registry import blocking_types
from outbox.walk import list_open_dead_types, rows_of_status, rows_of_type
from smartflow.kernel.counts import BoundedCount

# Up to here a dry run counts exactly.
COUNT_CAP = 10_000
# A dry run looks at no more dead rows than this, however few of them fit.
LOOK_CAP = 100_000
# Larger: fewer statements, and more rows in memory and under lock at once.
STEP = 1000
# So many rows are moved at once; more are moved in the background.
SMALL = 500
ERROR_LENGTH = 255


@dataclass(frozen=True, kw_only=True)
class Selection:
    """
    Dead letters: those of `ids`, or without ids all that fit every part given here; an empty part fits all.

    `error` is how the last error begins. A filter means open rows, unless `is_discarded` asks for those given up.
    """

    ids: tuple[int, ...] | None = None
    event_type: str = ""
    key: str = ""
    error: str = ""
    is_discarded: bool = False
    written_before: datetime | None = None
    parked_before: datetime | None = None
    up_to_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the parts that are given, for the action's record."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in given.items()
            if value is not None and value is not False and value != ""
        }

    @classmethod
    def from_json(cls, parts: dict[str, Any]) -> "Selection":
        """Return what to_json wrote."""
        known = {name: value for name, value in parts.items() if name in cls.__dataclass_fields__}
        for name in ("written_before", "parked_before"):
            if name in known:
                known[name] = datetime.fromisoformat(known[name])
        if "ids" in known:
            known["ids"] = tuple(known["ids"])
        return cls(**known)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One step of the walk: the ids that fit, how far it came, and how many rows it looked at at most."""

    ids: list[int]
    last_id: int
    looked_at: int
    is_end: bool


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A dry run: how many rows fit, the first of them, and whether every dead row was looked at."""

    count: BoundedCount
    ids: tuple[int, ...]
    looked_at: int
    is_complete: bool

    @property
    def is_empty(self) -> bool:
        """Tell whether no row fits; where not every row was looked at, one may."""
        return self.is_complete and not self.count.value

    @property
    def is_small(self) -> bool:
        """Tell whether the rows can be moved while somebody waits."""
        return self.is_complete and self.count.value <= SMALL


@dataclass(frozen=True, kw_only=True)
class OrderRisk:
    """Of the rows looked at: behind how many a later event of the key was handled, or waits for this one."""

    overtaken: int
    waited_for: int
    is_sample: bool


def freeze(*, selection: Selection, now: datetime) -> Selection:
    """Return the selection bound to the rows that are dead now: what dies later was in nobody's dry run."""
    if selection.ids is not None or selection.parked_before is not None:
        return selection
    newest = rows_of_status(status=Status.DEAD, is_upwards=False).values_list("id", flat=True).first() or 0
    last = newest if selection.up_to_id is None else min(selection.up_to_id, newest)
    return replace(selection, parked_before=now, up_to_id=last)


def look_at_dead_letters(
    *, selection: Selection, after_id: int = 0, before_id: int | None = None, limit: int = STEP
) -> Look:
    """
    Look at the next `limit` dead rows after a place, or with `before_id` at those before it, and return which fit.

    Order:  by id, downwards with `before_id`.
    Source: the ids of the step from an index alone, then these rows: idx_outbox_key_status when a key is given,
            idx_outbox_status_id for discarded rows, else idx_outbox_status_next, one read a type.
    """
    if selection.ids is not None:
        return _look_at_ids(selection.ids, after_id, limit)
    is_upwards = before_id is None
    seen: list[int] = []
    for rows in _indexed_rows(selection, is_upwards=is_upwards):
        rows = rows.filter(id__gt=after_id) if is_upwards else rows.filter(id__lt=before_id)
        if selection.up_to_id is not None:
            rows = rows.filter(id__lte=selection.up_to_id)
        seen.extend(rows.values_list("id", flat=True)[:limit])
    seen = nsmallest(limit, seen) if is_upwards else nlargest(limit, seen)
    fitting = set(_fitting(OutboxMessage.objects.filter(id__in=seen), selection).values_list("id", flat=True))
    return Look(
        ids=[pk for pk in seen if pk in fitting],
        last_id=seen[-1] if seen else after_id if before_id is None else before_id,
        looked_at=limit,
        is_end=len(seen) < limit,
    )


def _look_at_ids(ids: Sequence[int], after_id: int, limit: int) -> Look:
    chosen = sorted({pk for pk in ids if pk > after_id})[:limit]
    dead = OutboxMessage.objects.filter(id__in=chosen, status=Status.DEAD).order_by("id")
    return Look(
        ids=list(dead.values_list("id", flat=True)) if chosen else [],
        last_id=chosen[-1] if chosen else after_id,
        looked_at=limit,
        is_end=len(chosen) < limit,
    )


def _fitting(rows: QuerySet[OutboxMessage], selection: Selection) -> QuerySet[OutboxMessage]:
    rows = rows.filter(status=Status.DEAD, discarded_at__isnull=not selection.is_discarded)
    if selection.event_type:
        rows = rows.filter(biz_type=selection.event_type)
    if selection.error:
        # Not LIKE, which is blind to case on SQLite.
        rows = rows.annotate(beginning=Left("last_error", len(selection.error))).filter(beginning=selection.error)
    if selection.written_before is not None:
        rows = rows.filter(created_at__lt=selection.written_before)
    if selection.parked_before is not None:
        rows = rows.filter(updated_at__lte=selection.parked_before)
    return rows


def _indexed_rows(selection: Selection, *, is_upwards: bool) -> Iterator[QuerySet[OutboxMessage]]:
    """Yield the parts of the selection's rows that an index holds in the order of id."""
    if selection.key:
        rows = OutboxMessage.objects.filter(message_key=selection.key, status=Status.DEAD)
        yield rows.order_by("id" if is_upwards else "-id")
    elif selection.is_discarded:
        yield rows_of_status(status=Status.DEAD, is_upwards=is_upwards)
    else:
        types = [selection.event_type] if selection.event_type else list_open_dead_types()
        for event_type in types:
            yield rows_of_type(status=Status.DEAD, event_type=event_type, is_upwards=is_upwards)


def walk_dead_letters(*, selection: Selection) -> Iterator[Look]:
    """Look at every dead row of the selection, a step at a time."""
    after_id = 0
    while True:
        look = look_at_dead_letters(selection=selection, after_id=after_id)
        yield look
        if look.is_end:
            return
        after_id = look.last_id


def preview_dead_letters(*, selection: Selection) -> Preview:
    """
    Count the rows of a selection without moving any: exactly up to COUNT_CAP, else "at least".

    Bounded: stops behind COUNT_CAP rows that fit, or LOOK_CAP that were looked at.
    """
    ids: list[int] = []
    found, looked_at, is_end = 0, 0, False
    for look in walk_dead_letters(selection=selection):
        found, looked_at, is_end = found + len(look.ids), looked_at + look.looked_at, look.is_end
        ids.extend(look.ids[: SMALL - len(ids)])
        if found > COUNT_CAP or looked_at >= LOOK_CAP:
            break
    count = BoundedCount(value=min(found, COUNT_CAP), is_capped=not is_end or found > COUNT_CAP)
    return Preview(count=count, ids=tuple(ids), looked_at=looked_at, is_complete=not count.is_capped)


def order_risk(*, preview: Preview) -> OrderRisk:
    """Return where the order of a key would break, looked for among the first rows of the preview."""
    return OrderRisk(
        overtaken=len(list_overtaken_ids(ids=preview.ids)),
        waited_for=len(list_waited_for_ids(ids=preview.ids)),
        is_sample=preview.count.value > len(preview.ids),
    )


def list_waited_for_ids(*, ids: Sequence[int]) -> list[int]:
    """
    Return those of the given dead letters that hold back later events of their key: discarded, those go on without.

    One query; one read of idx_outbox_key_status a row.
    """
    waiting = OutboxMessage.objects.filter(
        message_key=OuterRef("message_key"), status=Status.PENDING, id__gt=OuterRef("id")
    )
    heads = OutboxMessage.objects.filter(
        Exists(waiting), id__in=ids, status=Status.DEAD, discarded_at__isnull=True, biz_type__in=blocking_types()
    )
    return list(heads.order_by("id").values_list("id", flat=True))
