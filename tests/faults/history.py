"""What the database holds of one run: the tables of the suite itself, and the end state for the checker."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.checker import Change, End, Entry, Violation
from tests.faults.plan import Plan
from tests.faults.servers import Book

TABLES = (
    "CREATE TABLE faults_journal (chat_id VARCHAR(36) NOT NULL, place INT NOT NULL, event_id VARCHAR(64) NOT NULL, "
    "tokens INT NOT NULL, PRIMARY KEY (chat_id, place), UNIQUE KEY (event_id)) ENGINE=InnoDB",
    "CREATE TABLE faults_changes (id BIGINT AUTO_INCREMENT PRIMARY KEY, message_id BIGINT NOT NULL, "
    "event_id VARCHAR(64) NOT NULL, old VARCHAR(32) NOT NULL, new VARCHAR(32) NOT NULL, is_ready BOOL NOT NULL, "
    "waits BOOL NOT NULL, part INT NULL, place BIGINT NULL, at DATETIME(6) NOT NULL, KEY (message_id)) ENGINE=InnoDB",
    "CREATE TRIGGER faults_note AFTER UPDATE ON agent_outbox_messages FOR EACH ROW "
    # also: a claimed row that is let go before it is settled, so where its message is, nobody wrote down
    "IF NEW.status <> OLD.status OR (OLD.claim_token IS NOT NULL AND NEW.claim_token IS NULL) THEN "
    "INSERT INTO faults_changes (message_id, event_id, old, new, is_ready, waits, part, place, at) "
    "VALUES (NEW.id, NEW.event_id, OLD.status, NEW.status, NEW.ready_shard IS NOT NULL, "
    "NEW.next_retry_at IS NOT NULL, NEW.published_partition, NEW.published_offset, NOW(6)); END IF",
)
HELD_WITHOUT_HOLD = (
    "SELECT m.event_id FROM agent_outbox_messages m WHERE m.id > %s AND m.status = 'pending' "
    "AND m.ready_shard IS NULL AND m.next_retry_at IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM outbox_key_holds h WHERE h.message_key = m.message_key) LIMIT 5"
)


@dataclass(frozen=True)
class OpenRow:
    """A row that is not consumed."""

    id: int
    event_id: str
    key: str
    status: str
    is_held: bool
    what: str


class History:
    """One run's conversations and everything written about them."""

    def __init__(self, book: Book, plan: Plan, number: int) -> None:
        self._book = book
        self.prefix = f"f{number}-{plan.seed}"
        self.chats = [f"{self.prefix}-c{n}" for n in range(plan.chats)]
        self.first_id = int(book.rows("SELECT COALESCE(MAX(id), 0) FROM agent_outbox_messages")[0][0])
        names = [f"{self.prefix}-u{n}" for n in range(plan.users)]
        for name in names:
            book.rows(
                "INSERT IGNORE INTO users (username, password, is_superuser, phone_number, token_limit, token_usage, "
                "is_staff, is_active, date_joined) VALUES (%s, '!', 0, '', 100000, 0, 0, 1, NOW(6))",
                name,
            )
        marks = ", ".join(["%s"] * len(names))
        found = dict(book.rows(f"SELECT username, id FROM users WHERE username IN ({marks})", *names))
        self.users = [int(found[name]) for name in names]
        self.owners = {chat: self.users[n % len(self.users)] for n, chat in enumerate(self.chats)}
        for chat, user in self.owners.items():
            book.rows(
                "INSERT IGNORE INTO agent_chats (chat_id, user_id, message_count, tokens_total, status, turn_count, "
                "created_at, updated_at) VALUES (%s, %s, 0, 0, 'active', 0, NOW(6), NOW(6))",
                chat,
                user,
            )

    def event_id(self, number: int) -> str:
        """The id of the run's event with this number."""
        return f"{self.prefix}-{number}"

    def open_rows(self) -> list[OpenRow]:
        """The rows that are not consumed, oldest first."""
        rows = self._book.rows(
            "SELECT id, event_id, message_key, status, ready_shard, next_retry_at, retry_count, claim_token, "
            "lease_until, published_partition, published_offset, last_error FROM agent_outbox_messages "
            "WHERE id > %s AND status <> 'consumed' ORDER BY id",
            self.first_id,
        )
        return [
            OpenRow(
                id=row[0],
                event_id=row[1],
                key=row[2],
                status=row[3],
                is_held=row[3] == "pending" and row[4] is None and row[5] is None,
                what=f"ready={row[4]} next={row[5]} tries={row[6]} token={row[7]} lease={row[8]} "
                f"at={row[9]}:{row[10]} error={row[11]}",
            )
            for row in rows
        ]

    def held_without_hold(self) -> list[Violation]:
        """Rows that nothing would ever let go."""
        return [
            Violation("held-without-hold", event_id)
            for (event_id,) in self._book.rows(HELD_WITHOUT_HOLD, self.first_id)
        ]

    def read_end(self, journals: list[Path], **known: Any) -> End:
        """Read everything the checker judges."""
        committed, rolled_back = _read_journals(journals)
        rows = self._book.rows
        histories: defaultdict[str, list[str]] = defaultdict(list)
        like = f"{self.prefix}-c%"
        journal = "SELECT chat_id, place, event_id, tokens FROM faults_journal WHERE chat_id LIKE %s"
        for chat, event_id in rows(
            "SELECT chat_id, source_event_id FROM chat_histories WHERE chat_id LIKE %s ORDER BY id", like
        ):
            histories[chat].append(event_id)
        marks = ", ".join(["%s"] * len(self.users))
        return End(
            journal=[Entry(*row) for row in rows(journal, like)],
            committed=committed,
            rolled_back=rolled_back,
            rows=dict(rows("SELECT event_id, status FROM agent_outbox_messages WHERE id > %s", self.first_id)),
            histories=dict(histories),
            chats={
                chat: (count, tokens)
                for chat, count, tokens in rows(
                    "SELECT chat_id, message_count, tokens_total FROM agent_chats WHERE chat_id LIKE %s", like
                )
            },
            users=dict(rows(f"SELECT id, token_usage FROM users WHERE id IN ({marks})", *self.users)),
            owners=self.owners,
            changes=[
                Change(event_id, old, new, bool(is_ready), place)
                for event_id, old, new, is_ready, place in rows(
                    "SELECT event_id, old, new, is_ready, place FROM faults_changes WHERE message_id > %s ORDER BY id",
                    self.first_id,
                )
            ],
            holds=int(rows("SELECT COUNT(*) FROM outbox_key_holds WHERE message_key LIKE %s", like)[0][0]),
            **known,
        )


def _read_journals(journals: list[Path]) -> tuple[set[str], set[str]]:
    outcomes: dict[str, set[str]] = {"committed": set(), "rolled back": set()}
    for journal in journals:
        for line in journal.read_text().splitlines() if journal.exists() else ():
            try:
                noted = json.loads(line)
            except ValueError:
                continue  # the writer was killed in the middle of the line
            outcomes.get(noted["outcome"], set()).update(noted["events"])
    return outcomes["committed"], outcomes["rolled back"]
