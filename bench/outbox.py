"""Commit → consumed: rate and latency of the real relay and consumer, beside the same pipeline by hand.

One run: the product drains a backlog (relay alone, consumer alone, both), then keeps up with a steady writer; then
the floor does the same on the same rows. All on MariaDB and Kafka.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from bench.figures import Load, medians, ratio
from bench.installation import Installation
from bench.processes import BenchFailed, Process
from bench.servers import Corner, MySQLdb
from bench.table import OutboxTable

RATES = (100, 300)
PARTITIONS = 6
WARM_UP_ROWS = 500
DRAIN_SECONDS = 90
RATIOS = {
    "relay_of_raw": ("relay", "raw_relay"),
    "consumer_of_raw_single": ("consumer", "raw_consumer_single"),
    "consumer_of_raw_batched": ("consumer", "raw_consumer_batched"),
    "pipeline_of_raw_single": ("pipeline", "raw_pipeline_single"),
    "pipeline_of_raw_batched": ("pipeline", "raw_pipeline_batched"),
}
Figures = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is written in one run."""

    relay_rows: int  # a relay is many times faster than a consumer
    consumer_seconds: int  # the consumer gets what it handles in about so long, at most as many rows as the relay
    steady_seconds: int


class OutboxBench:
    """Runs the phases on one installation whose processes are stopped."""

    def __init__(self, installation: Installation, corner: Corner, effort: Effort) -> None:
        self._installation = installation
        self._corner = corner
        self._effort = effort
        self._raw_number = 0
        self._rows = 0
        self._started = time.monotonic()
        self._table = OutboxTable(corner.connect(), check_alive=installation.check_alive)

    def measure(self, *, runs: int, may_go_on: Callable[[], bool], load: Load) -> dict[str, object]:
        """Return the medians over the runs, and their ratios to the floor."""
        self._prepare()
        found: list[Figures] = []
        for _ in range(runs):
            try:
                found.append({**self._run_product(), **self._run_floor()})
            except (BenchFailed, KafkaException, MySQLdb.Error) as error:
                if not found:
                    raise
                print(f"a run was given up, {len(found)} are kept: {error}", file=sys.stderr, flush=True)
                break
            load.look()
            if not may_go_on():
                break
        figures = medians(found)
        return {
            "runs": len(found),
            "effort": {**asdict(self._effort), "consumer_rows": self._rows},
            "figures": figures,
            "ratios": {name: ratio(figures[ours], figures[floor]) for name, (ours, floor) in RATIOS.items()},
            "by_run": found,
            "server": self._table.server(),
            "load": load.report(),
        }

    def profile(self) -> tuple[str, str]:
        """Return where relay and consumer spend their time on one backlog."""
        self._prepare()
        self._fill(self._effort.relay_rows, self._new_topic())
        relay = self._installation.run("profile-relay", "-m bench.profiled relay")
        rows = self._rows
        self._fill(rows, self._corner.topic)
        self._installation.run("profile-relay", "-m bench.profiled relay")
        consumer = self._installation.run("profile-consumer", f"-m bench.profiled consumer --events {rows}")
        return relay, consumer

    def _prepare(self) -> None:
        """Write the backlog once, create the topic, and find out how many rows keep the consumer busy for a while."""
        self._table.clear()
        self._installation.run("writer", f"-m bench.writer --backlog {self._effort.relay_rows}")
        self._table.keep_backlog()
        self._fill(WARM_UP_ROWS, self._corner.topic)
        with _Running(self._installation, "consumer", "worker"):
            self._wait("consumed_at", WARM_UP_ROWS)
        wanted = int(self._table.pipeline_rate() * self._effort.consumer_seconds)
        self._rows = max(WARM_UP_ROWS, min(wanted, self._effort.relay_rows))

    def _run_product(self) -> Figures:
        figures: Figures = {}
        rows, topic = self._rows, self._corner.topic
        side_topic = self._new_topic()
        with _Running(self._installation, "worker"):
            self._fill(self._effort.relay_rows, side_topic)
            self._wait("published_at", self._effort.relay_rows)
            self._note(figures, "relay", self._table.publish_rate())
            self._fill(rows, topic)
            self._wait("published_at", rows)
        with _Running(self._installation, "consumer"):
            self._wait("consumed_at", rows)
            self._note(figures, "consumer", self._table.consume_rate())
            self._check_books()
            with _Running(self._installation, "worker"):
                self._fill(rows, topic)
                self._wait("consumed_at", rows)
                self._note(figures, "pipeline", self._table.pipeline_rate())
                self._check_books()
                figures |= self._run_steady("")
        return figures

    def _run_floor(self) -> Figures:
        figures: Figures = {}
        rows = {"batched": self._effort.relay_rows, "single": self._rows}
        for kind in ("batched", "single"):
            topic = self._new_topic()
            with self._raw("relay", topic):
                self._fill(rows[kind])
                self._wait("published_at", rows[kind])
            if kind == "batched":
                self._note(figures, "raw_relay", self._table.publish_rate())
            with self._raw(f"consume-{kind}", topic):
                self._wait("consumed_at", rows[kind])
            self._note(figures, f"raw_consumer_{kind}", self._table.consume_rate())
            self._check_books()
        for kind in ("batched", "single"):
            topic = self._new_topic()
            with self._raw(f"consume-{kind}", topic), self._raw("relay", topic):
                self._fill(rows[kind])
                self._wait("consumed_at", rows[kind])
                self._note(figures, f"raw_pipeline_{kind}", self._table.pipeline_rate())
                self._check_books()
                if kind == "single":
                    figures |= self._run_steady("raw_")
        return figures

    def _run_steady(self, prefix: str) -> Figures:
        figures: Figures = {}
        for rate in RATES:
            self._table.clear()
            seconds = self._effort.steady_seconds
            output = self._installation.run("writer", f"-m bench.writer --rate {rate} --seconds {seconds}")
            written = json.loads(output.splitlines()[-1])
            self._wait("consumed_at", len(written["commits"]))
            self._check_books()
            self._note(figures, f"{prefix}at_{rate}_written", written["rate"])
            latencies = self._table.latencies(written["commits"])
            figures |= {f"{prefix}at_{rate}_{name}": value for name, value in latencies.items()}
        return figures

    def _note(self, figures: Figures, name: str, value: float) -> None:
        """Keep a figure and show that the bench moves on."""
        figures[name] = value
        print(f"  {time.monotonic() - self._started:4.0f} s  {name} {value}", file=sys.stderr, flush=True)

    def _fill(self, rows: int, topic: str = "") -> None:
        """Make so many rows pending at once; the floor's relay is told its topic and asks no row."""
        self._corner.forget_nudges()
        self._table.refill(rows, topic or self._corner.topic)

    def _wait(self, column: str, rows: int) -> None:
        self._table.wait_for(column, rows, seconds=DRAIN_SECONDS)

    def _check_books(self) -> None:
        """A figure counts only when the work behind it was done, once: the last transaction is given its moment."""
        wrong = {}
        for _ in range(50):
            wrong = {name: count for name, count in self._table.count_wrong().items() if count}
            if not wrong:
                return
        raise BenchFailed(f"the books do not balance: {wrong}")

    def _raw(self, part: str, topic: str) -> "_Raw":
        self._raw_number += 1
        group = f"{self._corner.name}.{self._raw_number}"
        return _Raw(self._installation, f"raw-{part}", f"-m bench.raw {part} --topic {topic} --group {group}")

    def _new_topic(self) -> str:
        self._raw_number += 1
        topic = f"{self._corner.name}.side.{self._raw_number}"
        admin = AdminClient({"bootstrap.servers": self._corner.kafka})
        admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1)])[topic].result(10)
        return topic


class _Running:
    """Processes of the product, from ready to stopped."""

    def __init__(self, installation: Installation, *names: str) -> None:
        self._installation = installation
        self._names = names

    def __enter__(self) -> None:
        self._installation.start(*self._names)

    def __exit__(self, *_error: object) -> None:
        self._installation.stop(*self._names)


class _Raw:
    """A process of the floor."""

    def __init__(self, installation: Installation, name: str, command: str) -> None:
        self._installation = installation
        self._name = name
        self._command = command

    def __enter__(self) -> Process:
        process = self._installation.spawn(self._name, self._command)
        process.wait_said("ready")
        return process

    def __exit__(self, *_error: object) -> None:
        self._installation.stop(self._name)
