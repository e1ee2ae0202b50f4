"""smartflow/observability/metrics.py: who may read the metrics, and where."""

import random
import socket
import urllib.error
import urllib.request
from contextlib import suppress

import pytest

from smartflow.observability.metrics import PORTS, start_exporter

TOKEN = "a-token-of-the-tests"


def fetch(server, *, path="/metrics", token=None):
    """Return the status and the text of one scrape."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def free_port(settings):
    """
    Give the test a port that nobody listens on, and nobody on the next one.

    Below those that the kernel hands out: else a connection of any process may be given one of them in the meantime.
    """
    for port in random.sample(range(20_000, 32_000, 2), 100):
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            settings.METRICS_PORT = port
            return port
    raise AssertionError("all ports are taken")


@pytest.fixture
def exporter(free_port, monkeypatch):
    """Return a function that starts an exporter, which ends with the test. Its numbers are not read from the tables."""
    monkeypatch.setattr("outbox.collector._read_gauges", list)
    started = []

    def start():
        started.append(start_exporter())
        return started[-1]

    yield start
    for server in filter(None, started):
        server.shutdown()
        server.server_close()


def test_the_page_does_not_exist_without_a_token(anonymous, settings):
    settings.METRICS_TOKEN = ""

    assert anonymous.get("/metrics").status_code == 404


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}é"])
def test_the_page_answers_nobody_without_the_token(anonymous, settings, header):
    settings.METRICS_TOKEN = TOKEN
    headers = {} if header is None else {"Authorization": header}

    answer = anonymous.get("/metrics", headers=headers)

    assert (answer.status_code, answer.headers["WWW-Authenticate"], answer.content) == (401, "Bearer", b"")


def test_the_page_shows_metrics_to_who_brings_the_token(anonymous, settings, db):
    settings.METRICS_TOKEN = TOKEN

    answer = anonymous.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "\noutbox_database_up 1.0\n" in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]


def test_no_port_is_opened_unless_one_is_set(settings):
    settings.METRICS_PORT = 0

    assert start_exporter() is None


def test_a_process_serves_its_metrics_on_its_port(exporter, free_port):
    server = exporter()

    status, text = fetch(server)

    assert (status, server.server_port) == (200, free_port)
    assert "outbox_published_total" in text
    assert "process_resident_memory_bytes" in text


def test_the_port_asks_for_the_token_when_there_is_one(exporter, settings):
    settings.METRICS_TOKEN = TOKEN
    server = exporter()

    assert [fetch(server, token=token)[0] for token in (None, "wrong", TOKEN)] == [401, 401, 200]


def test_the_next_process_takes_the_next_port(exporter, free_port):
    assert [exporter().server_port, exporter().server_port] == [free_port, free_port + 1]


def test_a_process_goes_on_when_no_port_is_free(exporter, caplog, monkeypatch):
    monkeypatch.setattr("smartflow.observability.metrics.PORTS", 1)

    assert PORTS == 16
    assert (exporter() is not None, exporter()) == (True, None)
    assert "no port is free" in caplog.text
