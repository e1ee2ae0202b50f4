"""What the database holds of one run's people, read past the product, all at one moment."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.faults.servers import Book
from tests.faults_chat.checker import Call, Change, Chat, Entry, Hold, Message, Run

TABLES = (
    "CREATE TABLE faults_run_changes (id BIGINT AUTO_INCREMENT PRIMARY KEY, run_id VARCHAR(36) NOT NULL, "
    "user_id BIGINT NOT NULL, old VARCHAR(16) NOT NULL, new VARCHAR(16) NOT NULL, old_epoch INT NOT NULL, "
    "new_epoch INT NOT NULL, had_spoken BOOL NOT NULL, is_cut BOOL NOT NULL, owner VARCHAR(64) NOT NULL, "
    "writer VARCHAR(16) NOT NULL, says_more BOOL NOT NULL, "
    "attempt INT NOT NULL, characters INT NOT NULL, stop_asked BOOL NOT NULL, lease_until DATETIME(6) NULL, "
    "at DATETIME(6) NOT NULL, KEY (user_id)) ENGINE=InnoDB",
    "CREATE TRIGGER faults_note_run AFTER UPDATE ON chat_runs FOR EACH ROW "
    "INSERT INTO faults_run_changes (run_id, user_id, old, new, old_epoch, new_epoch, had_spoken, is_cut, owner, "
    "writer, says_more, attempt, characters, stop_asked, lease_until, at) "
    "VALUES (NEW.id, NEW.user_id, OLD.state, NEW.state, OLD.epoch, NEW.epoch, OLD.has_spoken, "
    "LEFT(NEW.output_text, CHAR_LENGTH(OLD.output_text)) <> OLD.output_text, NEW.owner, "
    # set by each process on its connections: hooks/chat_injections.py
    "COALESCE(@faults_pid, 0), NEW.output_text <> OLD.output_text, NEW.attempt, CHAR_LENGTH(NEW.output_text), "
    "NEW.stop_requested_at IS NOT NULL, NEW.lease_until, UTC_TIMESTAMP(6))",
)
RUN_COLUMNS = (
    "id, chat_id, user_id, kind, turn_no, variant_no, is_current, state, COALESCE(is_live, 0), input_text, "
    "output_text, error_code, attempt, total_tokens, completion_tokens, is_usage_estimated"
)


@dataclass(frozen=True)
class Open:
    """What is not settled yet."""

    live_runs: int
    events: int

    def __bool__(self) -> bool:
        return bool(self.live_runs or self.events)


class Records:
    """The rows of some users."""

    def __init__(self, book: Book, user_ids: Iterable[int]) -> None:
        self._book = book
        self._users = list(user_ids)
        self._marks = ", ".join(["%s"] * len(self._users))
        # a title may be made, and charged, at any later time
        self._open_events = (
            "status <> 'consumed' AND biz_type = 'chat.history.persist.requested' AND message_key IN "
            f"(SELECT chat_id FROM agent_chats WHERE user_id IN ({self._marks}))"
        )

    def open(self) -> Open:
        """What the product still has to do."""
        live, events = self._book.rows(
            f"SELECT (SELECT COUNT(*) FROM chat_runs WHERE is_live AND user_id IN ({self._marks})), "
            f"(SELECT COUNT(*) FROM agent_outbox_messages WHERE {self._open_events})",
            *(self._users * 2),
        )[0]
        return Open(live, events)

    def read(self) -> dict[str, Any]:
        """Return the rows that the checker judges, all of one moment: jobs may go on meanwhile."""
        self._book.rows("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._book.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        try:
            return self._read()
        finally:
            self._book.rows("COMMIT")

    def _read(self) -> dict[str, Any]:
        runs = [_as_run(row) for row in self._of_users(f"SELECT {RUN_COLUMNS} FROM chat_runs")]
        timeline = self._of_users("SELECT chat_id, seq, kind, run_id, content FROM agent_timeline_events")
        messages = self._of_users(
            "SELECT chat_id, source_event_id, run_id, role, message_content, tokens_consumed FROM chat_histories"
        )
        calls = self._of_users(
            "SELECT entry_key, user_id, conversation_id, run_id, purpose, output_tokens, total_tokens FROM token_ledger"
        )
        holds = self._of_users(
            "SELECT hold_id, user_id, tokens, charged_tokens, settled_at IS NOT NULL FROM token_holds"
        )
        chats = self._of_users("SELECT chat_id, message_count, tokens_total, turn_count, timeline_seq FROM agent_chats")
        changes = self._of_users(
            "SELECT run_id, old, new, old_epoch, new_epoch, had_spoken, is_cut, owner, writer, "
            "says_more FROM faults_run_changes"
        )
        open_events = self._book.rows(
            f"SELECT event_id, status FROM agent_outbox_messages WHERE {self._open_events}", *self._users
        )
        windows = self._of_users("SELECT user_id, SUM(used_tokens), SUM(held_tokens) FROM token_windows", "user_id")
        users = self._book.rows(f"SELECT id, token_usage FROM users WHERE id IN ({self._marks})", *self._users)
        return {
            "runs": {run.id: run for run in runs},
            "timeline": [Entry(*row) for row in timeline],
            "messages": [Message(*row) for row in messages],
            "calls": [Call(*row) for row in calls],
            "holds": [Hold(*row[:4], bool(row[4])) for row in holds],
            "chats": {row[0]: Chat(*row) for row in chats},
            "users": dict(users),
            "windows": {user: (int(used), int(held)) for user, used, held in windows},
            "open_events": dict(open_events),
            "changes": [Change(*row[:5], bool(row[5]), bool(row[6]), row[7], row[8], bool(row[9])) for row in changes],
        }

    def dump(self) -> str:
        """Every row of the runs and all that was noted about them, to read by hand."""
        parts = []
        for table in ("chat_runs", "faults_run_changes", "agent_timeline_events", "token_ledger", "token_holds"):
            parts += [f"--- {table}", *(repr(row) for row in self._of_users(f"SELECT * FROM {table}"))]
        return "\n".join(parts)

    def _of_users(self, select: str, group: str = "") -> list[tuple[Any, ...]]:
        tail = f" GROUP BY {group}" if group else ""
        return self._book.rows(f"{select} WHERE user_id IN ({self._marks}){tail}", *self._users)


def _as_run(row: tuple[Any, ...]) -> Run:
    values = [bool(value) if place in (6, 8, 15) else value for place, value in enumerate(row)]
    return Run(*values)
