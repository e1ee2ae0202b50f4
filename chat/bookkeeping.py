"""Step 12: the history, the conversations' sums and the state snapshots, written for many events in one statement each.

Called by operations.records, thousands of times a second when the outbox catches up: hence SQL instead of models,
which took most of a consumer's time. Knows no event.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from django.db import connection

# One INSERT's worth. MariaDB refuses a statement of 16 MB, SQLite one of 32,766 values.
_PORTION_BYTES = 4 * 1024 * 1024
_PORTION_ROWS = 1000

Row = TypeVar("Row")

# What the column of one message holds.
MOST_TOKENS = 2**31 - 1

_INSERT = (
    "INSERT INTO chat_histories"
    " (chat_id, user_id, message_content, role, tokens_consumed, source_event_id, run_id, created_at) VALUES "
)
_ROW = "(%s, %s, %s, %s, %s, %s, %s, %s)"

# The rows are visited in the order given and by primary key. A scan would wait for rows that others have locked, and of
# a small table the database prefers one.
_COUNT_MYSQL = (
    "UPDATE JSON_TABLE(%s, '$[*]' COLUMNS (id BIGINT PATH '$[0]', messages INT PATH '$[1]', tokens BIGINT PATH '$[2]',"
    " last_at DATETIME(6) PATH '$[3]')) AS added"
    " STRAIGHT_JOIN agent_chats FORCE INDEX (PRIMARY) ON agent_chats.id = added.id"
    " SET message_count = message_count + added.messages, tokens_total = tokens_total + added.tokens,"
    " last_message_at = GREATEST(COALESCE(last_message_at, added.last_at), added.last_at)"
)
_COUNT_SQLITE = (
    "UPDATE agent_chats"
    " SET message_count = message_count + added.messages, tokens_total = tokens_total + added.tokens,"
    " last_message_at = MAX(COALESCE(last_message_at, added.last_at), added.last_at)"
    " FROM (SELECT value ->> 0 AS id, value ->> 1 AS messages, value ->> 2 AS tokens, value ->> 3 AS last_at"
    " FROM json_each(%s)) AS added WHERE agent_chats.id = added.id"
)

_UPSERT = (
    "INSERT INTO agent_state_snapshot_records"
    " (conversation_id, user_id, phase, snapshot_json, revision, created_at, updated_at) VALUES "
)
_UPSERT_ROW = "(" + ", ".join(["%s"] * 7) + ")"
# MySQL sets the columns in this order and reads what it has set already: hence the revision last. VALUES() is noted as
# deprecated by MySQL 8; its row alias is unknown to MariaDB, and there INSERT ... SELECT, which both know, holds the
# table's AUTO-INC lock while it waits for a row: every other conversation's state would wait too.
_NEWER_MYSQL = " ON DUPLICATE KEY UPDATE " + ", ".join(
    f"{column} = IF(VALUES(revision) > revision, VALUES({column}), {column})"
    for column in ("user_id", "phase", "snapshot_json", "updated_at", "revision")
)
_NEWER_SQLITE = (
    " ON CONFLICT (conversation_id) DO UPDATE SET user_id = excluded.user_id, phase = excluded.phase,"
    " snapshot_json = excluded.snapshot_json, updated_at = excluded.updated_at, revision = excluded.revision"
    " WHERE excluded.revision > agent_state_snapshot_records.revision"
)


class NewSnapshot(NamedTuple):
    """A row of agent_state_snapshot_records, in the order of the statement's columns."""

    conversation_id: str
    user_id: int
    phase: str
    snapshot_json: str
    revision: int


class NewHistory(NamedTuple):
    """A row of chat_histories, in the order of the statement's columns."""

    chat_id: str
    user_id: int
    message_content: str
    role: str
    tokens_consumed: int
    source_event_id: str
    run_id: str
    created_at: datetime


def insert_histories(histories: Sequence[NewHistory]) -> None:
    """
    Write rows of history, one statement for up to a thousand of them.

    Transaction: the caller's, which holds the conversations. Raises: IntegrityError for an event that has its row.
    """
    text_of = connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        for portion in _portions(histories, lambda history: history.message_content):
            values: list[str | int | None] = []
            for history in portion:
                values += history[:-1]
                values.append(text_of(history.created_at))
            cursor.execute(_INSERT + ", ".join([_ROW] * len(portion)), values)


def upsert_snapshots(*, snapshots: Sequence[NewSnapshot], now: datetime) -> None:
    """
    Write states of conversations, one for each, where no newer one is kept; one statement for up to a thousand.

    Transaction: the caller's.
    Twice:       changes nothing; of two at once the higher revision stays.
    """
    moment = str(connection.ops.adapt_datetimefield_value(now))
    newer = _NEWER_MYSQL if connection.vendor == "mysql" else _NEWER_SQLITE
    # in one order in every writer, so that none waits in a circle
    ordered = sorted(snapshots, key=lambda snapshot: snapshot.conversation_id)
    with connection.cursor() as cursor:
        for portion in _portions(ordered, lambda snapshot: snapshot.snapshot_json):
            values: list[str | int] = []
            for snapshot in portion:
                values += (*snapshot, moment, moment)
            cursor.execute(_UPSERT + ", ".join([_UPSERT_ROW] * len(portion)) + newer, values)


def _portions(rows: Sequence[Row], text_of: Callable[[Row], str]) -> Iterator[list[Row]]:
    portion: list[Row] = []
    size_bytes = 0
    for row in rows:
        more = 4 * len(text_of(row))  # at most
        if portion and (len(portion) == _PORTION_ROWS or size_bytes + more > _PORTION_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append(row)
        size_bytes += more
    if portion:
        yield portion


def count_histories(*, histories: Sequence[NewHistory], pk_of: Mapping[str, int]) -> None:
    """
    Add messages to their conversations' sums, in one statement.

    Transaction: the caller's, which holds the conversations; `pk_of` maps their chat_id to the primary key.
    Twice:       adds twice; the caller dedups.
    """
    counts: dict[int, tuple[int, int, datetime]] = {}
    for history in histories:
        pk = pk_of[history.chat_id]
        messages, tokens, last_at = counts.get(pk, (0, 0, history.created_at))
        counts[pk] = messages + 1, tokens + history.tokens_consumed, max(last_at, history.created_at)
    if not counts:
        return
    text_of = connection.ops.adapt_datetimefield_value
    added = [(pk, messages, tokens, text_of(last_at)) for pk, (messages, tokens, last_at) in sorted(counts.items())]
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_MYSQL if connection.vendor == "mysql" else _COUNT_SQLITE, [json.dumps(added)])
