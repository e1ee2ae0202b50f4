"""How fast the operators' pages answer with millions of rows: `python -m bench.admin_pages [--rows 10000000]`.

Fills a MariaDB database of its own beside the one DATABASE_URL names (scripts/services.py env) and keeps it for the
next run; --drop removes it. Asks each page as a signed-in operator, in this process: the time is that of the view, its
statements and its template. Places are drawn anew for each request, so that no page is asked twice from the cache.
"""

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import django
import MySQLdb
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.test import Client

from bench.finished import secondary_indexes

TABLE = "agent_outbox_messages"
CHUNK = 250_000
# Of these the newest rows are made; every fiftieth of the rest is dead, every third of the dead is discarded.
READY, WAITING, HELD, PUBLISHED = 100_000, 50_000, 50_000, 20_000
HELD_KEYS, ACTIONS = 5000, 5000
COMMON, RARE = "chat.history.persist.requested", "tasks.task.completed"
LIMIT_SECONDS = 0.3
LISTING = "/admin/outbox/outboxmessage/"
_UUID = "INSERT(INSERT(INSERT(INSERT(MD5({text}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
_STATE = (
    "CASE WHEN seq > {rows} - {ready} THEN 'ready' WHEN seq > {rows} - {waiting} THEN 'waiting'"
    " WHEN seq > {rows} - {held} THEN 'held' WHEN seq > {rows} - {published} THEN 'published'"
    " WHEN seq % 50 = 0 THEN 'dead' ELSE 'consumed' END"
)
_KEY = (
    "CASE WHEN state = 'held' THEN CONCAT('held-', seq % {held_keys}) WHEN seq % 20 = 7 THEN 'hot'"
    f" ELSE {_UUID.format(text='seq % {keys}')} END"
)
_INSERT = (
    f"INSERT INTO {TABLE} (id, event_id, biz_type, topic, message_key, payload, status, shard, ready_shard,"
    " retry_count, max_retry, next_retry_at, last_error, request_id, traceparent, published_by, published_partition,"
    " published_offset, published_at, consumed_by, consumed_at, discarded_at, discard_reason, created_at, updated_at)"
    " SELECT seq, event_id, IF(seq % 1000003 = 0, {rare}, {common}), 'smartflow.agent.outbox', message_key,"
    " RPAD(CONCAT('{{\"message\": \"', seq), 297, ' lecture library exam'),"
    " IF(state IN ('ready', 'waiting', 'held'), 'pending', state), CRC32(message_key) % 64,"
    " IF(state = 'ready', CRC32(message_key) % 64, NULL), IF(state IN ('dead', 'waiting'), 3, 0), 20,"
    " CASE WHEN state = 'waiting' THEN NOW(6) + INTERVAL seq % 600 SECOND"
    " WHEN state = 'dead' AND seq % 150 = 0 THEN NOW(6) END,"
    " IF(state = 'dead', CONCAT(IF(seq % 100 = 0, 'ToolFailed', 'EventUnreadable'), ': the reason of ', seq), NULL),"
    " CONCAT('req-', seq DIV 3), '', 'host:1', seq % 6, seq,"
    " IF(state IN ('published', 'consumed'), NOW(6), NULL), 'host:2', IF(state = 'consumed', NOW(6), NULL),"
    " IF(state = 'dead' AND seq % 150 = 0, NOW(6), NULL), '', NOW(6) - INTERVAL {rows} - seq SECOND, NOW(6)"
    f" FROM (SELECT seq, state, {_KEY} message_key, {_UUID.format(text='seq')} event_id FROM"
    f" (SELECT seq, {_STATE} state FROM seq_{{first}}_to_{{last}}) numbered) fresh ORDER BY seq"
)


def main() -> int:
    """Fill when needed, measure, print; 1 when a page is slower than the limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.admin_pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--drop", action="store_true", help="remove the database and end")
    options = parser.parse_args()
    database = _use_own_database()
    if options.drop:
        _server(f"DROP DATABASE IF EXISTS {database}")
        return 0
    django.setup()
    if not _is_filled(options.rows):
        _server(f"DROP DATABASE IF EXISTS {database}")
        _server(f"CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        call_command("migrate", verbosity=0)
        _fill(options.rows)
    return _measure(options.rows, options.requests)


def _use_own_database() -> str:
    url = urlsplit(os.environ["DATABASE_URL"])
    database = f"{url.path.strip('/')}_pages"
    os.environ["DATABASE_URL"] = url._replace(path=f"/{database}").geturl()
    for name in ("SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET"):
        os.environ.setdefault(name, f"bench-only-{name}-" + "0123456789" * 6)
    os.environ["DJANGO_SETTINGS_MODULE"] = "smartflow.settings"
    os.environ["DATABASE_READ_TIMEOUT_SECONDS"] = "3600"  # building the indexes is one statement
    return database


def _server(statement: str) -> None:
    url = urlsplit(os.environ["DATABASE_URL"])
    connection = MySQLdb.connect(
        host=url.hostname, port=url.port or 3306, user=url.username, password=url.password or ""
    )
    connection.cursor().execute(statement)
    connection.close()


def _is_filled(rows: int) -> bool:
    """Tell whether a run before this one came to its end; its last step was the operators' records."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT MAX(id), (SELECT COUNT(*) FROM outbox_operator_actions) FROM {TABLE}")
            return bool(cursor.fetchone() == (rows, ACTIONS))
    except DatabaseError:
        return False


def _fill(rows: int) -> None:
    began = time.monotonic()
    with connection.cursor() as cursor:
        indexes = secondary_indexes(cursor)
        cursor.execute(f"ALTER TABLE {TABLE} {', '.join(f'DROP INDEX `{name}`' for name in indexes)}")
        for first in range(1, rows + 1, CHUNK):
            cursor.execute(_statement(rows, first))
            print(f"{min(rows, first + CHUNK - 1):,} rows after {time.monotonic() - began:.0f} s", flush=True)
        cursor.execute(f"ALTER TABLE {TABLE} {', '.join(f'ADD {definition}' for definition in indexes.values())}")
        cursor.execute(f"ANALYZE TABLE {TABLE}")
        cursor.fetchall()
        for statement in _side_tables(rows):
            cursor.execute(statement)
    print(f"filled in {time.monotonic() - began:.0f} s", flush=True)


def _statement(rows: int, first: int) -> str:
    ends = {"ready": READY, "waiting": READY + WAITING, "held": READY + WAITING + HELD}
    return _INSERT.format(
        rows=rows,
        first=first,
        last=min(rows, first + CHUNK - 1),
        keys=max(1, rows // 10),
        held_keys=HELD_KEYS,
        rare=f"'{RARE}'",
        common=f"'{COMMON}'",
        published=READY + WAITING + HELD + PUBLISHED,
        **ends,
    )


def _side_tables(rows: int) -> Iterator[str]:
    # waits behind some dead row: which one makes no difference to the time
    yield (
        "INSERT INTO outbox_key_holds (message_key, head_id, since)"
        f" SELECT CONCAT('held-', seq), 50 * (seq + 1), NOW(6) FROM seq_0_to_{HELD_KEYS - 1}"
    )
    yield (
        "INSERT INTO outbox_attempts (message_id, step, number, at, seconds, `by`, error)"
        " SELECT seq, 'handle', seq % 3 + 1, NOW(6), 0.1, 'host:2', 'ToolFailed: why'"
        f" FROM seq_50_to_{rows // 10}_step_25"
    )
    yield (
        "INSERT INTO outbox_minute_counts (minute, written, published, consumed, retried, dead, fenced, duplicates,"
        " violations, conflicts) SELECT DATE_FORMAT(NOW() - INTERVAL seq MINUTE, '%Y-%m-%d %H:%i:00'), 600, 600, 600,"
        " 0, 0, 0, 0, 0, 0 FROM seq_0_to_20000"
    )
    yield (
        "INSERT INTO outbox_operator_actions (verb, selection, reason, `by`, requested_at, state, expected_count,"
        " done_count, after_id, is_stop_requested, stopped_by) SELECT 'requeue', CONCAT('{\"ids\": [', seq, ']}'), 'r',"
        f" 'alice', NOW(6), 'done', 1, 1, 0, 0, '' FROM seq_1_to_{ACTIONS}"
    )


def _pages(rows: int, draw: random.Random) -> dict[str, Callable[[], str]]:
    def any_id() -> int:
        return draw.randrange(1, rows - READY - WAITING - HELD - PUBLISHED)

    return {**_lists(rows, draw, any_id), **_searches(any_id), **_single_pages(rows, draw, any_id)}


def _lists(rows: int, draw: random.Random, any_id: Callable[[], int]) -> dict[str, Callable[[], str]]:
    listing, dead_letters = LISTING, "/admin/outbox/deadletter/"
    waiting = quote("2020-01-01T00:00:00+00:00~a~1")
    return {
        "overview": lambda: "/admin/",
        "overview, refreshed": lambda: "/admin/overview/",
        "rows": lambda: listing,
        "rows, somewhere": lambda: f"{listing}?after={any_id()}",
        "rows, somewhere, backwards": lambda: f"{listing}?before={any_id()}",
        **{
            f"rows, {state}": lambda state=state: f"{listing}?status={state}"  # type: ignore[misc]
            for state in ("pending", "ready", "unscheduled", "waiting", "published", "consumed", "dead")
        },
        "rows, ready, somewhere": lambda: f"{listing}?status=ready&after={draw.randrange(64)}~{rows - READY + 9}",
        "rows, waiting, from a place": lambda: f"{listing}?status=waiting&after={waiting}",
        "rows, consumed, somewhere": lambda: f"{listing}?status=consumed&after=consumed~{any_id()}",
        "rows, dead, somewhere": lambda: f"{listing}?status=dead&after=dead~{any_id()}",
        "rows, consumed, a type": lambda: (
            f"{listing}?status=consumed&event_type={COMMON}&after=consumed~{COMMON}~{any_id()}"
        ),
        "rows, consumed, a rare type": lambda: f"{listing}?status=consumed&event_type={RARE}",
        "rows, consumed, no such type": lambda: f"{listing}?status=consumed&event_type=schedule.none",
        "rows, published, a type": lambda: f"{listing}?status=published&event_type={COMMON}",
        "blocked keys": lambda: "/admin/outbox/keyhold/",
        "blocked keys, somewhere": lambda: f"/admin/outbox/keyhold/?after=held-{draw.randrange(HELD_KEYS)}",
        "dead letters": lambda: dead_letters,
        "dead letters, somewhere": lambda: f"{dead_letters}?after={any_id()}",
        "dead letters, an error": lambda: f"{dead_letters}?error=ToolFailed&after={any_id()}",
        "dead letters, a rare type": lambda: f"{dead_letters}?event_type={RARE}",
        "event types": lambda: "/admin/outbox/operatoraction/types/",
        "operator actions": lambda: "/admin/outbox/operatoraction/",
    }


def _searches(any_id: Callable[[], int]) -> dict[str, Callable[[], str]]:
    listing = LISTING

    def of_a_row(column: str) -> str:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {column} FROM {TABLE} WHERE id = %s", [any_id()])
            return str(cursor.fetchone()[0])

    return {
        "search, event id": lambda: f"{listing}?q={of_a_row('event_id')}",
        "search, row id": lambda: f"{listing}?q={any_id()}",
        "search, key": lambda: f"{listing}?q={of_a_row('message_key')}",
        "search, key of 500,000": lambda: f"{listing}?q=hot",
        "search, key of 500,000, somewhere": lambda: f"{listing}?q=hot&after={any_id()}",
        "search, request": lambda: f"{listing}?q=req-{any_id() // 3}",
        "search, nothing": lambda: f"{listing}?q=nothing-{any_id()}",
        "key": lambda: f"{listing}key/?key={of_a_row('message_key')}",
    }


def _single_pages(rows: int, draw: random.Random, any_id: Callable[[], int]) -> dict[str, Callable[[], str]]:
    listing = LISTING

    def page(row_id: int) -> str:
        return f"{listing}{row_id}/change/"

    def held_id() -> int:
        return draw.randrange(rows - READY - WAITING - HELD + 1, rows - READY - WAITING)

    return {
        "row": lambda: page(any_id()),
        "row, dead": lambda: page(any_id() // 50 * 50 + 50),
        "row, held": lambda: page(held_id()),
        "row, key of 500,000": lambda: page(any_id() // 20 * 20 + 7),
        "key, blocked": lambda: f"{listing}key/?key=held-{draw.randrange(HELD_KEYS)}",
        "key of 500,000": lambda: f"{listing}key/?key=hot",
        "key of 500,000, somewhere": lambda: f"{listing}key/?key=hot&before={any_id()}",
    }


def _measure(rows: int, requests: int) -> int:
    users: Any = get_user_model()._default_manager
    user = users.filter(username="pages").first() or users.create_superuser("pages", "unused")
    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(user)
    print(f"{rows:,} rows, {requests} requests a page; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'page':<38} {'p50 ms':>8} {'p95 ms':>8} {'most ms':>8}")
    slow = 0
    for name, url_of in _pages(rows, random.Random(4)).items():
        _ask(client, url_of())  # templates are compiled once a process
        times = sorted(_ask(client, url_of()) for _ in range(requests))
        p95 = times[max(0, round(0.95 * len(times)) - 1)]
        slow += p95 > LIMIT_SECONDS
        mark = " slow" if p95 > LIMIT_SECONDS else ""
        print(
            f"{name:<38} {statistics.median(times) * 1e3:8.1f} {p95 * 1e3:8.1f} {times[-1] * 1e3:8.1f}{mark}",
            flush=True,
        )
    return int(slow > 0)


def _ask(client: Any, url: str) -> float:
    began = time.perf_counter()
    response = client.get(url)
    took = time.perf_counter() - began
    if response.status_code != 200:
        raise SystemExit(f"{url} answered {response.status_code}")
    return took


if __name__ == "__main__":
    sys.exit(main())
