"""The floor: the same pipeline by hand, MySQLdb and confluent_kafka, no framework, no order guard, no retry.

Processes of their own, as the product's are, started by bench/outbox.py. They run until SIGTERM.
"""

import argparse
import json
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import MySQLdb
from confluent_kafka import Consumer, Message, Producer, TopicPartition

# As many as the product takes at once.
RELAY_BATCH = 500
CONSUMER_BATCH = 500
DEADLOCK = 1213
LEASE = timedelta(seconds=10)
# How long the relay rests when there was nothing to claim; the product is nudged by each commit instead.
IDLE_SECONDS = 0.005
CLAIM = (
    "SELECT id, event_id, message_key, payload FROM agent_outbox_messages WHERE ready_shard BETWEEN 0 AND 63"
    " AND (lease_until IS NULL OR lease_until <= %s) ORDER BY ready_shard, id LIMIT %s"
)
INSERT = (
    "INSERT INTO chat_histories (chat_id, user_id, message_content, role, tokens_consumed, source_event_id, run_id,"
    " created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)
COUNT_CHAT = (
    "UPDATE agent_chats SET message_count = message_count + %s, tokens_total = tokens_total + %s,"
    " last_message_at = GREATEST(COALESCE(last_message_at, %s), %s) WHERE chat_id = %s"
)
COUNT_USER = "UPDATE users SET token_usage = token_usage + %s WHERE id = %s"
CONSUMED = (
    "UPDATE agent_outbox_messages SET status = 'consumed', published_at = COALESCE(published_at, %s),"
    " consumed_at = %s, ready_shard = NULL, claim_token = NULL, lease_until = NULL, updated_at = %s WHERE id IN %s"
    " AND status NOT IN ('consumed', 'dead')"
)


class Database:
    """One connection, as the product's settings make it: READ COMMITTED, strict, UTC."""

    def __init__(self) -> None:
        url = urlsplit(os.environ["DATABASE_URL"])
        self.connection = MySQLdb.connect(
            host=url.hostname,
            port=url.port or 3306,
            user=url.username,
            password=url.password,
            database=url.path[1:],
            charset="utf8mb4",
            init_command="SET sql_mode='STRICT_TRANS_TABLES', time_zone='+00:00', tx_isolation='READ-COMMITTED'",
        )
        self.cursor = self.connection.cursor()

    def rows(self, sql: str, *parameters: object) -> Sequence[Any]:
        self.cursor.execute(sql, parameters)
        return self.cursor.fetchall()

    def write(self, sql: str, *parameters: object) -> None:
        self.cursor.execute(sql, parameters)

    def commit(self) -> None:
        self.connection.commit()

    def repeat(self, transaction: Callable[[], None]) -> None:
        """Run a transaction, again when the server chose it as the loser of a deadlock."""
        while True:
            try:
                transaction()
                return self.commit()
            except MySQLdb.OperationalError as error:
                if error.args[0] != DEADLOCK:
                    raise
                self.connection.rollback()


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def relay(topic: str) -> Callable[[], None]:
    """Return one step: claim, produce, wait for all acknowledgements, settle."""
    database = Database()
    producer = Producer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
        }
    )

    def step() -> None:
        moment, token = now(), str(uuid.uuid4())
        rows = database.rows(CLAIM, moment, RELAY_BATCH)
        if not rows:
            database.commit()
            time.sleep(IDLE_SECONDS)
            return
        ids = [row[0] for row in rows]
        database.write(
            "UPDATE agent_outbox_messages SET claim_token = %s, lease_until = %s, updated_at = %s WHERE id IN %s",
            *(token, moment + LEASE, moment, ids),
        )
        database.commit()
        for outbox_id, _, key, payload in rows:
            producer.produce(topic, value=f'{{"outbox_id":{outbox_id},{payload[1:]}'.encode(), key=key.encode())
        if producer.flush(10):
            raise SystemExit("not every message was acknowledged")
        database.repeat(lambda: settle(ids, token, now()))

    def settle(ids: list[int], token: str, moment: datetime) -> None:
        database.write(
            "UPDATE agent_outbox_messages SET status = 'published', published_at = %s, ready_shard = NULL,"
            " claim_token = NULL, lease_until = NULL, updated_at = %s WHERE id IN %s AND claim_token = %s",
            *(moment, moment, ids, token),
        )

    return step


def consume(topic: str, group: str) -> Callable[[], None]:
    """Return one step: poll, write what the messages ask for, store the offsets."""
    database = Database()
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.offset.store": False,
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    consumer.subscribe([topic])

    def step() -> None:
        # `consume` returns early only when it has all it was asked for: wait for one, then take what is there.
        messages = consumer.consume(1, 0.1)
        messages += consumer.consume(CONSUMER_BATCH - 1, 0) if messages else []
        good = [message for message in messages if message.error() is None]
        if good:
            database.repeat(partial(_apply, database, good))
        latest = {(message.topic(), message.partition()): message.offset() for message in good}
        for (name, partition), offset in latest.items():
            consumer.store_offsets(offsets=[TopicPartition(name, partition, offset + 1)])

    return step


def _apply(database: Database, messages: Sequence[Message]) -> None:
    """Write the rows of these messages in one transaction; what is final already is left out."""
    moment = now()
    bodies = {body["outbox_id"]: body for body in (json.loads(message.value()) for message in messages)}
    locked = "SELECT id FROM agent_outbox_messages WHERE id IN %s AND status NOT IN ('consumed', 'dead') FOR UPDATE"
    ids = sorted(row[0] for row in database.rows(locked, list(bodies)))
    if not ids:
        return
    events = [(bodies[pk]["event_id"], bodies[pk]["payload"]) for pk in ids]
    counts, chat_tokens, user_tokens = Counter[str](), Counter[str](), Counter[int]()
    for _, event in events:
        counts[event["conversation_id"]] += 1
        chat_tokens[event["conversation_id"]] += event["tokens_consumed"]
        user_tokens[event["user_id"]] += event["tokens_consumed"]
    database.cursor.executemany(INSERT, [_history(event_id, event, moment) for event_id, event in events])
    chats = [(count, chat_tokens[chat_id], moment, moment, chat_id) for chat_id, count in counts.items()]
    database.cursor.executemany(COUNT_CHAT, chats)
    users = [(tokens, user_id) for user_id, tokens in user_tokens.items() if tokens]
    database.cursor.executemany(COUNT_USER, users)
    database.write(CONSUMED, moment, moment, moment, ids)


def _history(event_id: str, event: dict[str, Any], moment: datetime) -> tuple[object, ...]:
    return (
        event["conversation_id"],
        event["user_id"],
        event["message"],
        event["role"],
        event["tokens_consumed"],
        event_id,
        event["run_id"],
        moment,
    )


def main() -> None:
    """Run one part until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.raw", description=__doc__)
    parser.add_argument("part", choices=("relay", "consume"))
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", default="")
    options = parser.parse_args()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    step = relay(options.topic) if options.part == "relay" else consume(options.topic, options.group)
    print("ready", flush=True)
    while not stopping:
        step()


if __name__ == "__main__":
    main()
