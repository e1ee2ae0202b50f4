"""How fast a conversation's pages answer with a million messages: `python -m bench.timeline [--messages 1000000]`.

Fills a MariaDB database of its own beside the one DATABASE_URL names (scripts/services.py env), asks at a hundredth, a
tenth and all of the messages, and removes it. Asks as a signed-in user, in this process: the time is that of the
token's check, the statements and the JSON. Places are drawn anew for each request. What this process itself computes
for a page, and the rows that the database reads for it, are told beside the time: no neighbour on the machine adds to
them.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import django
import MySQLdb
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.test import Client

from bench.figures import percentile

API = "/api/v1/agent/"
LIMIT_MS = 30.0
ENTRIES = 20  # of an ordinary conversation
OF_A_USER = 50  # conversations
LONG = 20_000  # entries of one conversation of the reader's
MANY = 20_000  # conversations of the collector's
READER, COLLECTOR = "reader", "collector"
PASSWORD = "korrekt-Pferd-9-Batterie"
_CHAT_ID = "INSERT(INSERT(INSERT(INSERT(MD5({n}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
_CHATS = (
    "INSERT INTO agent_chats (id, chat_id, user_id, title, message_count, tokens_total, last_message_at, status,"
    " turn_count, timeline_seq, compaction_watermark, context_token_stats, title_attempts, created_at, updated_at,"
    " deleted_at) SELECT seq, {chat_id}, {user}, CONCAT('Title ', seq), {entries}, 900, NOW(6) - INTERVAL seq % 99991"
    " SECOND, IF(seq % 4, 'active', 'archived'), {entries} DIV 2, {entries}, 0,"
    ' \'{{"msg0": 1, "msg1": 2, "msg2": 3, "msg3": 4, "total": 10, "budget": 80000}}\', 1, NOW(6), NOW(6),'
    " IF(seq % 10 = 3, NOW(6), NULL) FROM seq_{first}_to_{last}"
)
_ENTRIES = (
    "INSERT INTO agent_timeline_events (chat_id, user_id, seq, kind, role, content, payload, tokens_consumed, run_id,"
    " created_at) SELECT c.chat_id, c.user_id, e.seq, IF(e.seq % 2, 'user_text', 'assistant_text'), IF(e.seq % 2,"
    " 'user', 'assistant'), RPAD(CONCAT('message ', c.id, ' '), 200, 'lecture library exam '),"
    ' \'{{"run_id": "r", "turn_no": 1}}\', 9, UUID(), NOW(6)'
    " FROM agent_chats c JOIN seq_1_to_{entries} e WHERE c.id BETWEEN {first} AND {last}"
)


def main() -> int:
    """Fill step by step, ask, print; 1 when a page of the whole is slower than the limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.timeline", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()
    database = _use_own_database()
    _server(f"DROP DATABASE IF EXISTS {database}")
    _server(f"CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    try:
        django.setup()
        call_command("migrate", verbosity=0)
        filling = Filling()
        found: dict[str, list[Cost]] = {}
        sizes = [options.messages // 100, options.messages // 10, options.messages]
        for size in sizes:
            filling.fill_up(size)
            for name, costs in _ask_all(filling, options.requests).items():
                p95 = Cost(*(percentile(each, 0.95) for each in zip(*costs, strict=True)))
                found.setdefault(name, []).append(p95)
    finally:
        _server(f"DROP DATABASE IF EXISTS {database}")
    return _report(found, sizes, options.requests)


class Cost(NamedTuple):
    """What one page took."""

    seconds: float
    own_seconds: float  # of this process
    rows: float


class Filling:
    """What the tables hold: the reader's long conversation, the collector's many, and as many others as asked."""

    def __init__(self) -> None:
        users = get_user_model()._default_manager
        self.reader, self.collector = (users.create_user(name, PASSWORD).pk for name in (READER, COLLECTOR))
        self.messages = 0
        self._last_id = 0
        self.long = self._add(1, self.reader, LONG)[0]
        self._add(MANY, self.collector, 0)
        self.own = [self._add(OF_A_USER - 1, self.reader, ENTRIES)]

    def fill_up(self, messages: int) -> None:
        """Add ordinary conversations of other users until there are so many messages."""
        began = time.monotonic()
        while self.messages < messages:
            count = min(5000, (messages - self.messages) // ENTRIES + 1)
            self._add(count, f"1000 + seq DIV {OF_A_USER}", ENTRIES)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE TABLE agent_chats, agent_timeline_events")
            cursor.fetchall()
        print(f"{self.messages:,} messages after {time.monotonic() - began:.0f} s", flush=True)

    def _add(self, count: int, user: object, entries: int) -> list[str]:
        first, last = self._last_id + 1, self._last_id + count
        self._last_id = last
        self.messages += count * entries
        ids = {"first": first, "last": last, "entries": entries}
        with connection.cursor() as cursor:
            cursor.execute("SET foreign_key_checks = 0")
            cursor.execute(_CHATS.format(chat_id=_CHAT_ID.format(n="seq"), user=user, **ids))
            if entries:
                cursor.execute(_ENTRIES.format(**ids))
            cursor.execute("SELECT chat_id FROM agent_chats WHERE id BETWEEN %s AND %s", [first, last])
            return [row[0] for row in cursor.fetchall()]


def _ask_all(filling: Filling, requests: int) -> dict[str, list[Cost]]:
    draw = random.Random(5)
    reader, collector = _signed_in(READER), _signed_in(COLLECTOR)
    own = [chat_id for chat_id in filling.own[0] if _answers(reader, chat_id)]

    def timeline(chat_id: str, **values: object) -> str:
        query = {"conversation_id": chat_id, **values}
        return f"{API}conversation-timeline?{urlencode(query)}"

    def of_long(direction: str, limit: int) -> Callable[[], str]:
        return lambda: timeline(filling.long, **{direction: draw.randrange(500, LONG - 500)}, limit=limit)

    pages: dict[str, tuple[Client, Callable[[], str]]] = {
        f"timeline, {ENTRIES} entries": (reader, lambda: timeline(draw.choice(own))),
        "timeline, newest 50 of the long one": (reader, lambda: timeline(filling.long, limit=50)),
        "timeline, 50 before a place": (reader, of_long("before_seq", 50)),
        "timeline, 50 after a place": (reader, of_long("after_seq", 50)),
        "timeline, 400 (as many as without a limit)": (reader, of_long("before_seq", 400)),
        "conversation-meta": (reader, lambda: f"{API}conversation-meta?conversation_id={draw.choice(own)}"),
        "context-stats": (reader, lambda: f"{API}context-stats?conversation_id={draw.choice(own)}"),
        f"list, first page of {OF_A_USER}": (reader, lambda: f"{API}conversation-list"),
        f"list, first page of {MANY:,}": (collector, lambda: f"{API}conversation-list"),
        f"list, page 500 of {MANY:,}": (collector, lambda: f"{API}conversation-list?page=500"),
        f"list, archived, of {MANY:,}": (collector, lambda: f"{API}conversation-list?status=archived"),
    }
    return {name: [_ask(client, url()) for _ in range(requests)] for name, (client, url) in pages.items()}


def _signed_in(name: str) -> Client:
    client = Client(SERVER_NAME="127.0.0.1")
    answer = client.post(
        "/api/v1/user/login", {"username": name, "password": PASSWORD}, content_type="application/json"
    )
    client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {answer.json()['data']['access_token']}"
    return client


def _answers(client: Client, chat_id: str) -> bool:
    return client.get(f"{API}conversation-meta?conversation_id={chat_id}").status_code == 200


def _ask(client: Client, url: str) -> Cost:
    rows = _rows_read()
    began, own = time.perf_counter(), time.thread_time()
    answer = client.get(url)
    cost = time.perf_counter() - began, time.thread_time() - own
    if answer.status_code != 200:
        raise SystemExit(f"{url}: {answer.status_code} {answer.content[:300]!r}")
    return Cost(*cost, _rows_read() - rows)


def _rows_read() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT SUM(VARIABLE_VALUE) FROM information_schema.SESSION_STATUS"
            " WHERE VARIABLE_NAME IN ('HANDLER_READ_KEY', 'HANDLER_READ_NEXT', 'HANDLER_READ_PREV')"
        )
        return int(cursor.fetchone()[0])


def _report(found: dict[str, list[Cost]], sizes: list[int], requests: int) -> int:
    print(f"p95 of {requests} requests; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    heads = "".join(f"{f'{size:,}':>13}" for size in sizes)
    print(f"{'messages':<44}{heads}   (ms: all, of them here; rows read)")
    for name, costs in found.items():
        cells = (f"{one.seconds * 1000:.0f}/{one.own_seconds * 1000:.0f}/{one.rows:.0f}" for one in costs)
        print(f"{name:<44}" + "".join(f"{cell:>13}" for cell in cells))
    slow = [name for name, costs in found.items() if costs[-1].seconds * 1000 > LIMIT_MS]
    print(f"slower than {LIMIT_MS:.0f} ms: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


def _use_own_database() -> str:
    url = urlsplit(os.environ["DATABASE_URL"])
    database = f"{url.path.strip('/')}_timeline"
    os.environ["DATABASE_URL"] = url._replace(path=f"/{database}").geturl()
    for name in ("SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET"):
        os.environ.setdefault(name, f"bench-only-{name}-" + "0123456789" * 6)
    os.environ["DJANGO_SETTINGS_MODULE"] = "smartflow.settings"
    os.environ["DATABASE_READ_TIMEOUT_SECONDS"] = "3600"
    os.environ["RATE_LIMITS"] = "off"
    return database


def _server(statement: str) -> None:
    url = urlsplit(os.environ["DATABASE_URL"])
    server = MySQLdb.connect(host=url.hostname, port=url.port or 3306, user=url.username, password=url.password or "")
    server.cursor().execute(statement)
    server.close()


if __name__ == "__main__":
    sys.exit(main())
