"""The outbox table as the bench sees it: filled with the same backlog again and again, watched, asked for figures."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from bench.figures import percentile
from bench.processes import wait_until

# All but `id`: every filling gets new ids, so that a message left over from an earlier one has no row.
COLUMNS = (
    "event_id, biz_type, message_key, payload, status, shard, ready_shard, retry_count, max_retry, request_id,"
    " traceparent, published_by, consumed_by, discard_reason"
)
_WATCH_SECONDS = 0.02


class OutboxTable:
    """Over one connection with autocommit."""

    def __init__(self, connection: Any, *, check_alive: Callable[[], None]) -> None:
        self._connection = connection
        self._check_alive = check_alive

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return what a statement gives."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return list(cursor.fetchall())

    def keep_backlog(self, name: str) -> None:
        """Copy the rows that the writer has just written, so that refill() can bring them back."""
        self.rows(f"DROP TABLE IF EXISTS bench_{name}")
        self.rows(f"CREATE TABLE bench_{name} AS SELECT * FROM agent_outbox_messages WHERE status = 'pending'")

    def clear(self) -> None:
        """Empty the outbox and the history. Ids go on from where they were."""
        following = (self.rows("SELECT MAX(id) FROM agent_outbox_messages")[0][0] or 0) + 1
        self.rows("TRUNCATE agent_outbox_messages")
        self.rows("TRUNCATE chat_histories")
        self.rows("TRUNCATE token_ledger")  # each filling brings the same calls of a model
        self.rows(f"ALTER TABLE agent_outbox_messages AUTO_INCREMENT = {following}")

    def refill(self, name: str, count: int, topic: str) -> None:
        """Put the backlog's first rows in again, in order, and let the database take stock as it would in the end."""
        self.clear()
        self.rows(
            f"INSERT INTO agent_outbox_messages ({COLUMNS}, topic, created_at, updated_at)"
            f" SELECT {COLUMNS}, %s, created_at, updated_at FROM bench_{name} ORDER BY id LIMIT %s",
            topic,
            count,
        )
        self.rows("ANALYZE TABLE agent_outbox_messages")

    def wait_until_none(self, *statuses: str, seconds: float) -> float:
        """Wait until no row has one of these statuses; return the moment, as time.time()."""
        names = ", ".join(f"'{status}'" for status in statuses)
        question = f"SELECT EXISTS (SELECT 1 FROM agent_outbox_messages WHERE status IN ({names}))"

        def is_over() -> bool:
            self._check_alive()
            return not self.rows(question)[0][0]

        wait_until(is_over, seconds=seconds, what=f"an outbox without {names}", every=_WATCH_SECONDS)
        return time.time()

    def publish_rate(self) -> float:
        """Return rows a second, from the moment the first batch was published to the last."""
        sql = "SELECT MIN(published_at), MAX(published_at), COUNT(*) FROM agent_outbox_messages"
        first, last, count = self.rows(sql)[0]
        at_first = "SELECT COUNT(*) FROM agent_outbox_messages WHERE published_at = %s"
        return _rate(count - self.rows(at_first, first)[0][0], (last - first).total_seconds())

    def consume_rate(self, column: str, until: float) -> float:
        """Return rows a second, from the first moment in this column until all were seen consumed."""
        first, count = self.rows(f"SELECT MIN({column}), COUNT(*) FROM agent_outbox_messages")[0]
        return _rate(count, until - first.replace(tzinfo=UTC).timestamp())

    def latencies(self, commits: Mapping[str, float]) -> dict[str, float | None]:
        """Return the percentiles, in milliseconds from each event's commit to its acknowledgement and its handling."""
        rows = self.rows("SELECT event_id, published_at, consumed_at FROM agent_outbox_messages")
        assert len(rows) == len(commits)
        figures: dict[str, float | None] = {}
        for number, name in ((1, "acknowledged"), (2, "consumed")):
            seconds = [row[number].replace(tzinfo=UTC).timestamp() - commits[row[0]] for row in rows]
            for share in (0.5, 0.95, 0.99):
                figures[f"{name}_p{round(share * 100)}_ms"] = round(percentile(seconds, share) * 1000, 1)
        return figures

    def count_wrong(self) -> dict[str, int]:
        """Return what must be zero: unfinished rows, effects missing, doubled or out of a key's order."""
        unfinished = "SELECT COUNT(*) FROM agent_outbox_messages WHERE status <> 'consumed'"
        effects = "SELECT COUNT(*) - COUNT(DISTINCT source_event_id) FROM chat_histories"
        missing = (
            "SELECT COUNT(*) FROM agent_outbox_messages o LEFT JOIN chat_histories h"
            " ON h.source_event_id = o.event_id WHERE h.id IS NULL"
        )
        reordered = (
            "SELECT COUNT(*) FROM (SELECT o.id, LAG(o.id) OVER (PARTITION BY o.message_key ORDER BY h.id) earlier"
            " FROM agent_outbox_messages o JOIN chat_histories h ON h.source_event_id = o.event_id) pairs"
            " WHERE earlier > id"
        )
        questions = {"unfinished": unfinished, "doubled": effects, "missing": missing, "reordered": reordered}
        return {name: int(self.rows(sql)[0][0]) for name, sql in questions.items()}

    def server(self) -> dict[str, str]:
        """Return the server's version and what makes its commits durable."""
        sql = "SELECT VERSION(), @@innodb_flush_log_at_trx_commit, @@innodb_buffer_pool_size"
        version, flush, pool = self.rows(sql)[0]
        return {
            "mariadb": version,
            "innodb_flush_log_at_trx_commit": str(flush),
            "innodb_buffer_pool_mb": str(pool // 1024**2),
        }


def _rate(count: int, seconds: float) -> float:
    return round(count / max(seconds, 0.001), 1)


def utc_text() -> str:
    """Return this moment for people."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
