"""Rows by statements that are put together once: for what every turn waits for, and for nothing else.

Put together by the models, a statement takes ten to thirty times the processor time of sending it, and a turn sends two
dozen. Called by operations inside their transactions; knows no table. Columns, types and defaults are the models'.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cache
from typing import Any, Generic, TypeVar

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import NOT_PROVIDED, BooleanField, DateTimeField, Field, JSONField, Model, QuerySet

_M = TypeVar("_M", bound=Model)
_Converter = Callable[[Any], Any]


def insert_row(model: type[Model], /, **values: object) -> int:
    """
    Insert a row and return the id that the database gave it, where it gives one; columns not named get their default.

    Transaction: the caller's. Raises: IntegrityError; TypeError for a column that has no default.
    """
    return insert_rows(model, [values])


def insert_rows(model: type[Model], rows: Sequence[Mapping[str, object]], /) -> int:
    """Insert rows that name the same columns, with as few statements as the database takes; else as insert_row."""
    plan = _insertion(model, tuple(rows[0]), connection.vendor)
    at_once = len(rows)
    if connection.features.max_query_params:
        at_once = connection.features.max_query_params // len(plan.names)
    first_id = 0
    with connection.cursor() as cursor:
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            cursor.execute(plan.head + ", ".join([plan.row] * len(part)), [v for row in part for v in plan.values(row)])
            first_id = first_id or int(cursor.lastrowid or 0)
    return first_id


def execute(statement: str, *parameters: Any) -> int:
    """Run a statement on numbers, texts and what `moment` returns; tell how many rows it found."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def fetch(statement: str, *parameters: Any) -> tuple[Any, ...] | None:
    """Return the first row of a query as the database's client gives it, or None."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row


def read_tuples(rows: "QuerySet[Any, tuple[Any, ...]]") -> list[tuple[Any, ...]]:
    """
    Return what a `values_list` of a model's own columns gives, for lists that may be long.

    On MariaDB and MySQL moments become aware of UTC and numbers booleans here: Django's way there through each column's
    functions takes longer than reading the rows.
    """
    if connection.vendor != "mysql":
        return list(rows)
    try:
        statement, parameters = rows.query.sql_with_params()
    except EmptyResultSet:
        return []
    fields = [rows.model._meta.get_field(name) for name in rows.query.values_select]
    moments = [position for position, field in enumerate(fields) if isinstance(field, DateTimeField)]
    flags = [position for position, field in enumerate(fields) if isinstance(field, BooleanField)]
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [_with_types(row, moments, flags) for row in cursor.fetchall()]


def _with_types(row: tuple[Any, ...], moments: list[int], flags: list[int]) -> tuple[Any, ...]:
    values = list(row)
    for position in moments:
        if (naive := values[position]) is not None:
            values[position] = naive.replace(tzinfo=UTC)
    for position in flags:
        if (number := values[position]) is not None:
            values[position] = bool(number)
    return tuple(values)


def moment(at: Any) -> Any:
    """Return a point in time, or None, as statements take it."""
    return None if at is None else connection.ops.adapt_datetimefield_value(at)


def read_moment(value: Any) -> Any:
    """Return a point in time, or None, of what `fetch` returned."""
    convert = getattr(connection.ops, "convert_datetimefield_value")  # noqa: B009 - no backend's stubs know it
    return convert(value, None, connection)


def json_text(value: Any) -> Any:
    """Return what a JSONField keeps, or None, as statements take it."""
    return None if value is None else connection.ops.adapt_json_value(value, None)


class RowReader(Generic[_M]):
    """Reads a whole row of a model by one condition, and locks it where that is asked and there are locks."""

    def __init__(self, model: type[_M], condition: str, *, is_locking: bool = False) -> None:
        self._model = model
        self._condition = condition
        self._is_locking = is_locking

    def find(self, *parameters: Any) -> _M | None:
        """Return the first row, or None."""
        plan = _reading(self._model, connection.vendor)
        lock = " FOR UPDATE" if self._is_locking and connection.features.has_select_for_update else ""
        row = fetch(f"{plan.head} WHERE {self._condition}{lock}", *parameters)
        if row is None:
            return None
        values = list(row)
        for position, column, convert in plan.converters:
            values[position] = convert(values[position], column, connection)
        return self._model.from_db(DEFAULT_DB_ALIAS, plan.names, values)


@dataclass(frozen=True, slots=True)
class _Insertion:
    head: str
    row: str
    names: tuple[str, ...]
    converters: tuple[tuple[int, _Converter], ...]

    def values(self, row: Mapping[str, object]) -> list[Any]:
        values: list[Any] = [row[name] for name in self.names]
        for position, convert in self.converters:
            values[position] = convert(values[position])
        return values


@dataclass(frozen=True, slots=True)
class _Reading:
    head: str
    names: tuple[str, ...]
    converters: tuple[tuple[int, Any, Callable[..., Any]], ...]


@cache
def _insertion(model: type[Model], names: tuple[str, ...], _vendor: str) -> _Insertion:
    """Put an INSERT together. What is not named stands in it as a literal: a parameter more costs more each time."""
    fields: dict[str, Field[Any, Any]] = {field.attname: field for field in model._meta.concrete_fields}
    if unknown := set(names) - set(fields):
        raise TypeError(f"{model.__name__} has no {', '.join(sorted(unknown))}")
    others = [field for name, field in fields.items() if name not in names and not field.primary_key]
    columns = [_quote(fields[name].column) for name in names] + [_quote(field.column) for field in others]
    places = ["%s"] * len(names) + [_default(field) for field in others]
    converters = ((position, _converter(fields[name])) for position, name in enumerate(names))
    return _Insertion(
        head=f"INSERT INTO {_quote(model._meta.db_table)} ({', '.join(columns)}) VALUES ",  # noqa: S608 - as below
        row=f"({', '.join(places)})",
        names=names,
        converters=tuple((position, convert) for position, convert in converters if convert is not None),
    )


def _converter(field: "Field[Any, Any]") -> _Converter | None:
    """Say how a value is sent; numbers and texts are sent as they are."""
    return moment if isinstance(field, DateTimeField) else json_text if isinstance(field, JSONField) else None


def _default(field: "Field[Any, Any]") -> str:
    if field.default is NOT_PROVIDED and not field.null:
        raise TypeError(f"{field.model.__name__}.{field.attname} has no default: it must be given")
    value = field.get_default()
    if isinstance(field, JSONField):
        value = json_text(value)
    if value is None:
        return "NULL"
    if isinstance(field, BooleanField) or isinstance(value, int):
        return str(int(value))
    text = str(value)
    if not set(text).isdisjoint("'%\\"):
        raise TypeError(f"{field.model.__name__}.{field.attname} has a default that must be given as a value")
    return f"'{text}'"


@cache
def _reading(model: type[Model], _vendor: str) -> _Reading:
    converters: list[tuple[int, Any, Callable[..., Any]]] = []
    for position, field in enumerate(model._meta.concrete_fields):
        column = field.cached_col
        found = (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
        converters += [(position, column, convert) for convert in found]
    columns = ", ".join(_quote(field.column) for field in model._meta.concrete_fields)
    head = f"SELECT {columns} FROM {_quote(model._meta.db_table)}"  # noqa: S608 - the models' own names
    return _Reading(head, tuple(field.attname for field in model._meta.concrete_fields), tuple(converters))


def _quote(name: str | None) -> str:
    return connection.ops.quote_name(name or "")
