"""Members of a group on a real broker: a rebalance in the middle of a long batch, and two processes, one killed."""

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection

from chat.models import AgentChat, ChatHistory
from outbox.envelope import encode_wire
from outbox.models import OutboxMessage, Status, Worker
from outbox.testing import run_relay
from outbox.testing.contract import outgoing, receive, texts
from outbox.transports import Delivery, OutgoingMessage
from smartflow.accounts.models import User
from tests.integration.chat.turns import talk
from tests.stack import wait_until

pytestmark = pytest.mark.services
ROOT = Path(__file__).resolve().parents[2]
KEYS = [f"key{number}" for number in range(12)]
ROWS_MOVE_WITHIN_SECONDS = 15
# The question, the answer, and the state behind it.
EVENTS_A_TURN = 3


def place(delivery: Delivery) -> tuple[int, int]:
    return delivery.partition, delivery.offset


def test_a_rebalance_in_the_middle_of_a_long_batch_waits_for_no_handler_and_loses_nothing(transport):
    transport.publish([outgoing(f"{key} first", key=key) for key in KEYS], timeout_seconds=10)
    busy, newcomer = transport.open_consumer(), transport.open_consumer()
    try:
        in_hand = receive(busy, wanted=len(KEYS))
        transport.publish([outgoing(f"{key} second", key=key) for key in KEYS], timeout_seconds=10)
        came: list[Delivery] = []

        def is_newcomer_in() -> bool:
            busy.keep_alive()  # its handler works all the time: it polls nothing and acknowledges nothing
            came.extend(newcomer.poll(max_messages=100, timeout_seconds=0.2))
            return bool(newcomer.positions()) and bool(came)

        wait_until(is_newcomer_in, 30, "partitions for the newcomer")
        lost = {one.partition for one in newcomer.positions()}
        kept = {one.partition for one in busy.positions()}
        assert (lost & kept, lost | kept) == (set(), {0, 1, 2})

        busy.acknowledge(in_hand)
        came += receive(newcomer, wanted=2 * sum(one.partition in lost for one in in_hand) - len(came))
        later = receive(busy, wanted=sum(one.partition in kept for one in in_hand))
        # Nothing was acknowledged of what was lost: the newcomer got both rounds of it, in order, and nothing else.
        assert {one.partition for one in came} == lost
        assert sorted(texts(came)) == sorted(
            f"{one.key} {word}" for one in in_hand if one.partition in lost for word in ("first", "second")
        )
        assert sorted(came, key=place) == sorted(came, key=lambda one: (one.partition, came.index(one)))
        # What came while the batch was in hand was kept, in order, but for what was lost.
        assert sorted(texts(later)) == sorted(f"{one.key} second" for one in in_hand if one.partition in kept)
    finally:
        busy.close()
        newcomer.close()


class Processes:
    """Consumers as an operator starts them, on this test's database, topic and group."""

    def __init__(self, settings, folder: Path) -> None:
        url = connection.settings_dict
        account = f"{quote(url['USER'])}:{quote(url['PASSWORD'])}"
        self._environment = os.environ | {
            "DATABASE_URL": f"mysql://{account}@{url['HOST']}:{url['PORT']}/{url['NAME']}",
            "OUTBOX_TOPIC_PREFIX": settings.OUTBOX_TOPICS["chat"].removesuffix(".agent.outbox"),
            "OUTBOX_TOPIC_PARTITIONS": "3",
            "OUTBOX_CONSUMER_GROUP": settings.OUTBOX_CONSUMER_GROUP,
            "SMARTFLOW_DATA_DIR": str(folder),
        }
        self.running: list[subprocess.Popen] = []

    def start(self) -> None:
        command = [sys.executable, "manage.py", "consume_events"]
        quiet = subprocess.DEVNULL
        self.running.append(subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=quiet, stderr=quiet))

    def kill(self) -> int:
        """Kill the first one as the kernel would, and return its number."""
        process = self.running.pop(0)
        process.kill()
        process.wait(10)
        return process.pid

    def close(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(20)


@pytest.fixture
def processes(settings, kafka, transport, tmp_path):
    if connection.vendor != "mysql":
        pytest.skip("two processes need a database server")
    settings.OUTBOX_TOPICS = dict.fromkeys(("chat", "agent"), f"{kafka}.agent.outbox")
    made = Processes(settings, tmp_path)
    yield made
    made.close()


@pytest.mark.django_db(transaction=True)
def test_a_killed_consumer_and_messages_that_come_twice_leave_one_effect_each_in_order(processes, transport, alice):
    def publish(rounds: int) -> None:
        """Write and publish turns of twelve conversations, then every tenth message once more."""
        for number in range(rounds):
            for index, conversation_id in enumerate(conversations):
                conversations[index] = talk(alice, (f"Q{number}", f"A{number}"), conversation_id=conversation_id)
            assert run_relay(transport=transport).claimed == EVENTS_A_TURN * len(conversations)
            again = OutboxMessage.objects.order_by("-id")[: EVENTS_A_TURN * len(conversations) : 10]
            assert transport.publish([message_of(row) for row in again], timeout_seconds=10).failures == {}

    conversations: list[str | None] = [None] * 12
    publish(1)
    processes.start()
    processes.start()
    wait_until(lambda: partitions_by_worker() == [3, 3], 40, "an equal share for each of two consumers")
    publish(3)
    killed = processes.kill()
    killed_at = time.monotonic()
    publish(3)

    wait_until(lambda: not OutboxMessage.objects.exclude(status=Status.CONSUMED).exists(), 40, "every event handled")

    assert time.monotonic() - killed_at < ROWS_MOVE_WITHIN_SECONDS
    assert Worker.objects.filter(name__endswith=f":{killed}").count() == 1  # it said no goodbye
    events = list(OutboxMessage.objects.order_by("id").values_list("event_id", flat=True))
    assert len(events) == EVENTS_A_TURN * 12 * 7
    written = ChatHistory.objects.order_by("id")
    for conversation_id in conversations:
        ids = written.filter(chat_id=conversation_id).values_list("source_event_id", flat=True)
        own = OutboxMessage.objects.filter(message_key=conversation_id).order_by("id")
        own = own.filter(biz_type="chat.history.persist.requested")
        assert list(ids) == list(own.values_list("event_id", flat=True))
    assert set(AgentChat.objects.values_list("message_count", "tokens_total")) == {(14, 63)}
    assert User.objects.get(pk=alice.pk).token_usage == 63 * 12


def message_of(row: OutboxMessage) -> OutgoingMessage:
    value = encode_wire(outbox_id=row.pk, event_id=row.event_id, stored=row.payload)
    return OutgoingMessage(outbox_id=row.pk, topic=row.topic, key=row.message_key, value=value)


def partitions_by_worker() -> list[int]:
    states = Worker.objects.filter(kind=Worker.Kind.CONSUMER).values_list("state", flat=True)
    return sorted(len(state["partitions"]) for state in states)
