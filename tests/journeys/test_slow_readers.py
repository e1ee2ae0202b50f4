"""Readers that do not take what they are sent, that leave, that are too many: nobody else notices."""

import json
import socket
import time

import pytest

from tests.stack import wait_until
from tests.stack.fixtures import JOURNEY_SETTINGS, KIND_PARAMS
from tests.stack.stack import Stack

SLOW_SECONDS = 2
CAP = 4
# more than the buffers between hold, so that none of them hides a reader who does not read
FLOOD = "Tell me [[tokens=4000 delay_ms=2]]"


@pytest.fixture(scope="module", params=KIND_PARAMS)
def strict(request, tmp_path_factory):
    settings = JOURNEY_SETTINGS | {
        "CHAT_SLOW_READER_SECONDS": str(SLOW_SECONDS),
        "CHAT_MAX_TAILS_OF_USER": str(CAP),
    }
    with Stack(request.param, tmp_path_factory.mktemp(f"strict-{request.param}"), settings=settings) as stack:
        yield stack


def open_slowly(stack, person, run_id):
    """Begin to follow a run with a small window, and read nothing."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", stack.port))
    head = f"GET /api/v1/agent/runs/{run_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {person.token}"
    reader.sendall(f"{head}\r\n\r\n".encode())
    return reader


def read_all(reader):
    """Take what was sent until the connection ends, and tell whether it ended as HTTP wants it."""
    content = b""
    reader.settimeout(10)
    try:
        while more := reader.recv(65536):
            content += more
    except ConnectionResetError:
        pass
    return content, content.endswith(b"0\r\n\r\n")


def last_id(content):
    complete = content.rpartition(b"\n\n")[0].decode(errors="ignore")
    return [line.removeprefix("id: ") for line in complete.split("\n") if line.startswith("id: ")][-1]


def test_reader_that_does_not_read_is_cut_off_without_an_end_and_resumes(strict):
    alice = strict.invite()
    slow = []

    def begin_slow(reply):
        if len(reply.events) == 3:
            slow.append(open_slowly(strict, alice, reply.run_id))

    fast = alice.chat(FLOOD, on_event=begin_slow)

    fast.assert_whole()
    content, has_ended_well = read_all(slow[0])
    slow[0].close()
    assert not has_ended_well
    assert b"[DONE]" not in content

    rest = alice.follow(fast.run_id, last_id(content))

    seen = int(last_id(content).split("-")[1])
    assert rest.text == fast.text[seen:]
    assert rest.done_count == 1
    assert "completing response" not in strict.processes["web"].log_tail()


def test_one_reader_too_many_is_refused_and_places_of_those_who_left_are_free(strict):
    alice, bob = strict.invite(), strict.invite()
    readers = []
    refused = []

    def crowd(reply):
        if len(reply.events) == 3:
            readers.extend(open_slowly(strict, alice, reply.run_id) for _ in range(CAP - 1))
            for reader in readers:
                reader.recv(100)
            refused.append(alice.at(strict.base_url).follow(reply.run_id))
            for reader in readers:
                reader.close()
            wait_until(lambda: alice.at(strict.base_url).follow(reply.run_id, leave_when=bool).status == 200, 5)

    reply = alice.chat("Tell me [[tokens=80 delay_ms=50]]", on_event=crowd)

    reply.assert_whole()
    assert (refused[0].status, refused[0].body["status"]) == (429, "40033")
    assert int(refused[0].headers["retry-after"]) >= 1
    bob.chat("Hello [[tokens=1]]").assert_whole()


def test_restart_cuts_readers_of_other_processes_runs_and_they_resume(strict):
    alice = strict.invite()
    broken = []

    with strict.second_web() as address:

        def follow_and_stop(reply):
            if len(reply.events) == 5:
                device = alice.at(address)
                began = time.monotonic()
                stopped = []

                def stop_server(followed):
                    if len(followed.events) >= 2 and not stopped:
                        stopped.append(strict.processes["web2"].ask_to_end())

                broken.append((device.follow(reply.run_id, on_event=stop_server), time.monotonic() - began))

        first = alice.chat("Tell me [[tokens=200 delay_ms=30]]", on_event=follow_and_stop)
        log = strict.processes["web2"].log_tail()

    first.assert_whole()
    cut, seconds = broken[0]
    assert cut.is_broken
    assert cut.done_count == 0
    assert seconds < 3
    assert json.loads(cut.events[-1].data)
    assert "Traceback" not in log
    rest = alice.follow(first.run_id, cut.ids[-1])
    assert cut.text + rest.text == first.text
