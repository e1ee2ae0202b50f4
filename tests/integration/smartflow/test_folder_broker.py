"""The embedded Celery broker: nothing torn, nothing twice, nothing that a kill leaves can stop a worker."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection

from smartflow import celery_app

MESSAGES = 200


@pytest.fixture
def open_queue(tmp_path):
    """Return a function that opens the queue through a connection of its own."""
    opened = []

    def open_one():
        connection = Connection("filesystem://", transport_options={"data_folder_in": str(tmp_path)})
        opened.append(connection)
        return connection.SimpleQueue("ticks")

    assert celery_app.connection().transport.driver_name  # the application registers the transport
    yield open_one
    for connection in opened:
        connection.release()


def read_until_quiet(queue, *, quiet_seconds=0.5):
    numbers, last = [], time.monotonic()
    while time.monotonic() - last < quiet_seconds:
        try:
            message = queue.get(block=False)
        except queue.Empty:
            continue
        message.ack()
        numbers.append(message.payload["number"])
        last = time.monotonic()
    return numbers


def test_readers_never_see_half_a_message_and_never_the_same_one(open_queue, tmp_path):
    queues = [open_queue() for _ in range(4)]

    def write(queue, start):
        for number in range(start, start + MESSAGES):
            queue.put({"number": number, "filler": "x" * 20_000})

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read_until_quiet, queue) for queue in queues[:2]]
        writers = [pool.submit(write, queue, index * MESSAGES) for index, queue in enumerate(queues[2:])]
        for writer in writers:
            writer.result()
        numbers = [number for reader in readers for number in reader.result()]

    assert sorted(numbers) == list(range(2 * MESSAGES))
    assert os.listdir(tmp_path) == []


def test_messages_come_in_the_order_they_were_sent(open_queue):
    queue = open_queue()
    for number in range(5):
        queue.put({"number": number})

    assert queue.qsize() == 5
    assert read_until_quiet(queue, quiet_seconds=0.1) == [0, 1, 2, 3, 4]


def test_messages_outlive_the_process_that_sent_them(open_queue):
    sender = open_queue()
    sender.put({"number": 1})
    sender.channel.connection.client.release()

    assert read_until_quiet(open_queue(), quiet_seconds=0.1) == [1]


def test_damaged_message_is_passed_over(open_queue, tmp_path):
    queue = open_queue()
    (tmp_path / f"{0:020d}-torn.ticks.msg").write_text('{"body": "half')
    queue.put({"number": 1})

    assert read_until_quiet(queue, quiet_seconds=0.1) == [1]
    assert queue.qsize() == 0


def test_leftovers_of_killed_processes_are_removed_when_old(open_queue, tmp_path):
    old, fresh = tmp_path / "1-a.ticks.draft", tmp_path / "2-b.ticks.draft"
    for path in (old, fresh):
        path.write_text("{")
    os.utime(old, (time.time() - 3600,) * 2)

    assert read_until_quiet(open_queue(), quiet_seconds=0.05) == []
    assert os.listdir(tmp_path) == [fresh.name]


def test_purge_empties_one_queue_and_leaves_the_others(open_queue, tmp_path):
    queue = open_queue()
    queue.put({"number": 1})
    other = tmp_path / f"{0:020d}-x.other.msg"
    other.write_text("{}")

    assert queue.clear() == 1
    assert os.listdir(tmp_path) == [other.name]
