"""Writes events as the product does: the conversation's row locked, then `append_event`, in one transaction.

A process of its own, started by bench/outbox.py with the variables of the installation. Prints JSON.
"""

import argparse
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import django

django.setup()

from django.db import connection, transaction  # noqa: E402

from chat.models import AgentChat  # noqa: E402
from outbox.append import NewEvent, append_event, append_events  # noqa: E402
from outbox.envelope import encode_stored  # noqa: E402
from smartflow.accounts.contracts import ModelCall  # noqa: E402
from smartflow.accounts.models import User  # noqa: E402
from smartflow.events import ChatHistoryPersistRequested  # noqa: E402
from smartflow.kernel.clock import utc_now  # noqa: E402
from smartflow.kernel.ids import new_uuid  # noqa: E402

PAYLOAD_BYTES = 1024
EVENTS_PER_KEY = 10
EVENTS_PER_TRANSACTION = 100
USERS = 20
THREADS = 4
_WORDS = ("lecture", "library", "exam", "deadline", "report", "seminar", "tutorial", "revision", "break", "meeting")


class Conversations:
    """New conversations of some users; event number n belongs to conversation n modulo their count."""

    def __init__(self, events: int, keys: int = 0) -> None:
        prefix = new_uuid()[:8]
        names = [f"bench-{prefix}-{number}" for number in range(USERS)]
        User.objects.bulk_create([User(username=name, password="!") for name in names])
        users = list(User.objects.filter(username__in=names).order_by("id").values_list("id", flat=True))
        # A multiple of the threads, so that one key's events are all written by the same thread, in order.
        count = keys or max(THREADS, events // EVENTS_PER_KEY // THREADS * THREADS)
        self.rows = [(new_uuid(), users[number % USERS]) for number in range(count)]
        AgentChat.objects.bulk_create([AgentChat(chat_id=chat_id, user_id=user) for chat_id, user in self.rows])
        # Locked by primary key, as the product does: a lock through the unique key is one more for deadlocks.
        self.pks = dict(AgentChat.objects.filter(user_id__in=users).values_list("chat_id", "pk"))

    def event(self, number: int) -> tuple[str, ChatHistoryPersistRequested]:
        """Return the key and the event: a user's message and an assistant's in turns, 1 KB as stored."""
        chat_id, user_id = self.rows[number % len(self.rows)]
        is_user = number // len(self.rows) % 2 == 0
        event = ChatHistoryPersistRequested(
            user_id=user_id,
            conversation_id=chat_id,
            run_id=new_uuid(),
            role="user" if is_user else "assistant",
            message="",
            tokens_consumed=0 if is_user else 50,
            occurred_at=utc_now().isoformat(),
            calls=[] if is_user else [asdict(_one_call())],
        )
        room = PAYLOAD_BYTES - len(encode_stored(event=event, event_id=new_uuid(), aggregate_id=chat_id))
        text = " ".join(random.choices(_WORDS, k=room // 5))[:room]
        return chat_id, replace(event, message=text)


def _one_call() -> ModelCall:
    return ModelCall(call_id=new_uuid(), purpose="answer", model="worker", total_tokens=50)


def write_backlog(*, events: int, keys: int) -> dict[str, float]:
    """Write all events as fast as one thread can, many to a transaction and to a statement."""
    conversations = Conversations(events, keys)
    started = time.perf_counter()
    for first in range(0, events, EVENTS_PER_TRANSACTION):
        chosen = [conversations.event(number) for number in range(first, min(events, first + EVENTS_PER_TRANSACTION))]
        with transaction.atomic():
            locked = {conversations.pks[key] for key, _ in chosen}
            list(AgentChat.objects.select_for_update().filter(pk__in=locked).order_by("id").values_list("id"))
            append_events(events=[NewEvent(event=event, key=key) for key, event in chosen], now=utc_now())
    return {"rows_per_second": round(events / (time.perf_counter() - started))}


def write_steadily(*, rate: int, seconds: int) -> dict[str, object]:
    """Write one event a transaction at a fixed rate, late or not; return each event's moment of commit."""
    events = rate * seconds
    conversations = Conversations(events)
    commits: dict[str, float] = {}
    start = time.time() + 0.2

    def write(mine: int) -> None:
        for number in range(mine, events, THREADS):
            key, event = conversations.event(number)
            event_id = new_uuid()
            time.sleep(max(0.0, start + number / rate - time.time()))
            with transaction.atomic():
                AgentChat.objects.select_for_update().only("id").get(pk=conversations.pks[key])
                append_event(event=event, key=key, event_id=event_id, now=utc_now())
            commits[event_id] = time.time()
        connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(THREADS)))  # raises what a writer raised
    return {"rate": round(events / (max(commits.values()) - start)), "commits": commits}


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m bench.writer", description=__doc__)
    parser.add_argument("--backlog", type=int, help="so many events at once")
    parser.add_argument("--keys", type=int, default=0, help="of so many conversations; a tenth of the events")
    parser.add_argument("--rate", type=int, help="events a second")
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    if options.backlog:
        print(json.dumps(write_backlog(events=options.backlog, keys=options.keys)))
    else:
        print(json.dumps(write_steadily(rate=options.rate, seconds=options.seconds)))


if __name__ == "__main__":
    main()
