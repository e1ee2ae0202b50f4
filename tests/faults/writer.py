"""Writes events as the product's operations do: the conversation's row locked, then append_event, in one transaction.

Beside each event a row of faults_journal in the same transaction: what was committed, and in which order per
conversation. A line in a file after each commit says what the database promised to keep.
"""

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import django

django.setup()

from django.db import DatabaseError, InterfaceError, connection, transaction  # noqa: E402

from chat.models import AgentChat  # noqa: E402
from outbox.append import append_event  # noqa: E402
from smartflow.accounts.contracts import ModelCall  # noqa: E402
from smartflow.events import ChatHistoryPersistRequested  # noqa: E402
from smartflow.kernel.clock import utc_now  # noqa: E402


class RollBack(Exception):
    """The plan wants this transaction to leave nothing."""


@dataclass(frozen=True)
class Writing:
    """What one transaction needs, ready made by the driver."""

    pause_seconds: float
    hold_seconds: float
    rolls_back: bool
    events: list[dict[str, Any]]


def write(writing: Writing) -> None:
    """Write one transaction. Raises: RollBack when the plan says so."""
    with transaction.atomic():
        chats = sorted({event["chat_id"] for event in writing.events})
        locked = AgentChat.objects.filter(chat_id__in=chats).order_by("chat_id")
        ids = sorted(locked.values_list("pk", flat=True))
        list(AgentChat.objects.select_for_update().filter(pk__in=ids).order_by("pk").values_list("pk"))
        for event in writing.events:
            _append(event)
        if writing.hold_seconds:
            time.sleep(writing.hold_seconds)
        if writing.rolls_back:
            raise RollBack


def _append(event: dict[str, Any]) -> None:
    append_event(
        event=ChatHistoryPersistRequested(
            user_id=event["user_id"],
            conversation_id=event["chat_id"],
            run_id=event["run_id"],
            role="assistant" if event["tokens"] else "user",
            message=event["message"],
            tokens_consumed=event["tokens"],
            occurred_at=utc_now().isoformat(),
            calls=[asdict(_call(event))] if event["tokens"] else [],
        ),
        key=event["chat_id"],
        event_id=event["event_id"],
        now=utc_now(),
    )
    with connection.cursor() as cursor:
        # The conversation's row is locked, so nobody else of this conversation is between the maximum and the commit.
        cursor.execute(
            "INSERT INTO faults_journal (chat_id, place, event_id, tokens) "
            "SELECT %s, COALESCE(MAX(place), 0) + 1, %s, %s FROM faults_journal WHERE chat_id = %s",
            [event["chat_id"], event["event_id"], event["tokens"], event["chat_id"]],
        )


def _call(event: dict[str, Any]) -> ModelCall:
    return ModelCall(call_id=event["event_id"], purpose="answer", model="worker", total_tokens=event["tokens"])


def write_all(writings: list[Writing], journal: Any) -> None:
    """Write one thread's transactions in order; one that fails is given up, as a request would be."""
    for writing in writings:
        time.sleep(writing.pause_seconds)
        try:
            write(writing)
        except RollBack:
            outcome = "rolled back"
        except (DatabaseError, InterfaceError) as error:
            connection.close()
            outcome = f"unknown: {error}"
        else:
            outcome = "committed"
        ids = [event["event_id"] for event in writing.events]
        journal.write(json.dumps({"outcome": outcome, "events": ids}) + "\n")
    connection.close()


def main(script: str, journal: str) -> None:
    """Run every thread of a script."""
    threads = [[Writing(**one) for one in thread] for thread in json.loads(Path(script).read_text())]
    with Path(journal).open("a", buffering=1) as lines:
        running = [threading.Thread(target=write_all, args=(writings, lines)) for writings in threads]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
