"""What the database holds of one user, read past the product: the messages, the three sums, the outbox."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

MESSAGE = "chat.history.persist.requested"


@dataclass(frozen=True)
class Books:
    """All of one user's rows that must agree with each other in the end."""

    runs: list[dict[str, Any]]
    chats: list[dict[str, Any]]
    histories: list[dict[str, Any]]
    events: list[dict[str, Any]]
    timeline: list[dict[str, Any]]
    ledger: list[dict[str, Any]]
    states_kept: list[dict[str, Any]]
    token_usage: int

    @property
    def states(self) -> Counter[str]:
        return Counter(event["status"] for event in self.events)

    @property
    def is_settled(self) -> bool:
        """Whether no run is live, every event was consumed, and no title is being made."""
        is_quiet = all(not run["is_live"] for run in self.runs) and set(self.states) <= {"consumed"}
        return is_quiet and all(chat["title_due_at"] is None for chat in self.chats)

    def assert_balanced(self) -> None:
        """Every committed event had exactly one effect, in order, and the three sums of rule B agree."""
        assert self.is_settled, (self.states, self.runs)
        written = [history["source_event_id"] for history in self.histories]
        messages = [event["event_id"] for event in self.events if event["biz_type"] == MESSAGE]
        assert sorted(written) == sorted(messages)
        assert len(set(written)) == len(written)
        for chat in self.chats:
            self._assert_conversation(chat)
        total = sum(history["tokens_consumed"] for history in self.histories)
        assert total == self.token_usage == sum(chat["tokens_total"] for chat in self.chats)
        assert total == sum(entry["total_tokens"] for entry in self.ledger)
        of_runs = sum(entry["total_tokens"] for entry in self.ledger if entry["purpose"] != "title")
        assert of_runs == sum(run["total_tokens"] for run in self.runs)
        assert all(history["tokens_consumed"] == 0 for history in self.histories if history["role"] == "user")

    def _assert_conversation(self, chat: dict[str, Any]) -> None:
        mine = [history for history in self.histories if history["chat_id"] == chat["chat_id"]]
        assert len(mine) == chat["message_count"]
        assert sum(history["tokens_consumed"] for history in mine) == chat["tokens_total"]
        self._assert_timeline(chat)
        own = [run for run in self.runs if run["chat_id"] == chat["chat_id"]]
        runs = sorted(own, key=lambda run: (run["turn_no"], run["variant_no"]))
        expected = [
            (role, text)
            for run in runs
            for role, text in (("user", run["input_text"]), ("assistant", run["output_text"]))
            if (run["kind"] == "turn" if role == "user" else text or run["total_tokens"])
        ]
        assert [(history["role"], history["message_content"]) for history in mine] == expected

    def _assert_timeline(self, chat: dict[str, Any]) -> None:
        """The seq has neither gap nor repeat, and the entries say what the runs say."""
        entries = [entry for entry in self.timeline if entry["chat_id"] == chat["chat_id"]]
        assert [entry["seq"] for entry in entries] == list(range(1, chat["timeline_seq"] + 1))
        runs = {run["id"]: run for run in self.runs}
        said = [entry for entry in entries if entry["kind"] == "assistant_text"]
        assert sorted(entry["run_id"] for entry in said) == sorted(
            run["id"] for run in runs.values() if run["chat_id"] == chat["chat_id"]
        )
        for entry in said:
            run = runs[entry["run_id"]]
            assert (entry["content"], entry["tokens_consumed"]) == (run["output_text"], run["total_tokens"])
        newest = [state["revision"] for state in self.states_kept if state["conversation_id"] == chat["chat_id"]]
        assert newest == [max(entry["seq"] for entry in said)] if said else not newest


def read_books(rows: Any, user_id: int) -> Books:
    """Read a user's rows through `rows(sql, *parameters)`."""
    return Books(
        runs=rows("SELECT * FROM chat_runs WHERE user_id = ? ORDER BY created_at, turn_no", user_id),
        chats=rows("SELECT * FROM agent_chats WHERE user_id = ? ORDER BY id", user_id),
        histories=rows("SELECT * FROM chat_histories WHERE user_id = ? ORDER BY id", user_id),
        events=rows(
            "SELECT o.event_id, o.biz_type, o.status, o.retry_count, o.last_error, o.message_key "
            "FROM agent_outbox_messages o "
            "JOIN agent_chats c ON c.chat_id = o.message_key WHERE c.user_id = ? ORDER BY o.id",
            user_id,
        ),
        timeline=rows("SELECT * FROM agent_timeline_events WHERE user_id = ? ORDER BY chat_id, seq", user_id),
        ledger=rows("SELECT * FROM token_ledger WHERE user_id = ? ORDER BY id", user_id),
        states_kept=rows("SELECT * FROM agent_state_snapshot_records WHERE user_id = ?", user_id),
        token_usage=rows("SELECT token_usage FROM users WHERE id = ?", user_id)[0]["token_usage"],
    )
