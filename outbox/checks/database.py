"""What the tables and the server really are. Runs with `migrate` and `check --database default`.

A database that is away, or not migrated yet, is nobody's mistake: then nothing is said.
"""

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from outbox.models import OutboxMessage, Worker
from smartflow.kernel.clock import utc_now

TABLE = OutboxMessage._meta.db_table
# What is compared byte by byte: keys that differ in case only must stay two keys.
_COMPARED = ("event_id", "message_key", "biz_type", "claim_token")
# Leases and retries use the database's clock, events are stamped by this machine's.
_MOST_SKEW_SECONDS = 1.0

Check = Callable[[BaseDatabaseWrapper], list[CheckMessage]]


def _database_check(*, only: str | None = None) -> Callable[[Check], Check]:
    """Register a check of the connection, on servers of the given vendor only."""

    def decorate(check: Check) -> Check:
        def run(app_configs: Any = None, databases: Sequence[str] | None = None, **_kwargs: Any) -> list[CheckMessage]:
            if "default" not in (databases or ()):
                return []
            connection = connections["default"]
            if only and connection.vendor != only:
                return []
            try:
                return check(connection) if TABLE in connection.introspection.table_names() else []
            except (DatabaseError, InterfaceError):
                return []

        register(run, Tags.database)
        return check

    return decorate


def _rows(connection: BaseDatabaseWrapper, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def _variable(connection: BaseDatabaseWrapper, *names: str) -> str:
    """Return the first variable that the server has under one of the names."""
    found = dict(_rows(connection, "SHOW VARIABLES WHERE variable_name IN %s", names))
    return str(next(found[name] for name in names if name in found))


@_database_check(only="mysql")
def check_key_collation(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """Keys are compared byte by byte, or `a` and `A` are one key and one unique id."""
    columns = _rows(
        connection,
        "SELECT column_name, collation_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s AND collation_name NOT LIKE '%%\\_bin'",
        TABLE,
    )
    return [
        Error(
            f"The column {TABLE}.{column} has the collation {collation}, which does not compare byte by byte.",
            hint=f"ALTER TABLE {TABLE} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;",
            id="outbox.E020",
        )
        for column, collation in columns
        if column in _COMPARED
    ]


@_database_check(only="mysql")
def check_microseconds(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """Times are kept in microseconds, or a lease of a row would end up to a second early."""
    columns = _rows(
        connection,
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s AND data_type = 'datetime' AND datetime_precision < 6",
        TABLE,
    )
    return [
        Error(
            f"The column {TABLE}.{column} keeps no microseconds.",
            hint=f"ALTER TABLE {TABLE} MODIFY {column} datetime(6), with NULL or NOT NULL as it is now.",
            id="outbox.E021",
        )
        for (column,) in columns
    ]


@_database_check(only="mysql")
def check_engine(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """Without transactions an event would exist without its business write."""
    engines = _rows(
        connection,
        "SELECT engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
        TABLE,
    )
    return [
        Error(
            f"The table {TABLE} uses the engine {engine}, which has no transactions.",
            hint=f"ALTER TABLE {TABLE} ENGINE=InnoDB;",
            id="outbox.E022",
        )
        for (engine,) in engines
        if engine != "InnoDB"
    ]


@_database_check(only="mysql")
def check_session_isolation(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """The settings ask for READ COMMITTED; this is what the server gave."""
    level = _variable(connection, "transaction_isolation", "tx_isolation")
    if level == "READ-COMMITTED":
        return []
    return [
        Error(
            f"The server runs this session at {level}, not at READ-COMMITTED.",
            hint="Take away what overrides it: init_connect of the server, or a proxy in between.",
            id="outbox.E023",
        )
    ]


@_database_check(only="mysql")
def check_skip_locked(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """Relays pass rows that another one holds; a server that can't makes them wait for each other."""
    if connection.features.has_select_for_update_skip_locked:
        return []
    ((version,),) = _rows(connection, "SELECT VERSION()")
    return [
        Error(
            f"The server {version} does not know SKIP LOCKED.",
            hint="Use MariaDB 10.6 or later, or MySQL 8.0 or later.",
            id="outbox.E024",
        )
    ]


@_database_check(only="mysql")
def check_flush(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """A commit that was answered must survive a loss of power."""
    flush = _variable(connection, "innodb_flush_log_at_trx_commit")
    if flush == "1":
        return []
    return [
        Warning(
            f"innodb_flush_log_at_trx_commit is {flush}: a crash of the machine loses what was committed just before.",
            hint="Set innodb_flush_log_at_trx_commit=1 on the server.",
            id="outbox.W025",
        )
    ]


@_database_check(only="mysql")
def check_packet(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """A statement must be able to carry the longest event."""
    allowed = int(_variable(connection, "max_allowed_packet"))
    if allowed >= 16 * 1024 * 1024:
        return []
    return [
        Warning(
            f"max_allowed_packet is {allowed} bytes: a long answer can't be saved.",
            hint="Set max_allowed_packet=16M or more on the server.",
            id="outbox.W026",
        )
    ]


@_database_check(only="mysql")
def check_clock_skew(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """Ages and latencies mix this machine's clock with the database's."""
    before = utc_now()
    ((there,),) = _rows(connection, "SELECT UTC_TIMESTAMP(6)")
    middle = before + (utc_now() - before) / 2
    skew = (there.replace(tzinfo=UTC) - middle).total_seconds()
    if abs(skew) <= _MOST_SKEW_SECONDS:
        return []
    return [
        Warning(
            f"The database's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's.",
            hint="Let both follow the same time servers (timedatectl set-ntp true).",
            id="outbox.W027",
        )
    ]


@_database_check()
def check_local_consumers(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """The local transport has one partition: more consumers only see each other's messages again."""
    if not settings.OUTBOX_TRANSPORT.endswith("LocalTransport"):
        return []
    living = Worker.objects.using(connection.alias).filter(kind=Worker.Kind.CONSUMER, lease_until__gt=utc_now())
    count = living.count()
    if count <= 1:
        return []
    return [
        Warning(
            f"{count} consumers read the local transport, which serves one.",
            hint="Stop all but one, or name brokers in KAFKA_BOOTSTRAP_SERVERS.",
            id="outbox.W028",
        )
    ]
