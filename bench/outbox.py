"""Commit → consumed: rate and latency of the real relay and consumer, beside the same pipeline by hand.

One run: the product drains backlogs (relay alone, consumer alone, both, one hot key, four relays), keeps up with a
steady writer and rests; then the floor does the same on the same rows. All on MariaDB and Kafka.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from confluent_kafka import KafkaException

from bench.figures import Load, medians, ratio
from bench.installation import Installation
from bench.processes import BenchFailed, Process, wait_until
from bench.servers import Corner, MySQLdb
from bench.statements import queries
from bench.table import OutboxTable

RATE = 300
RELAYS = 4
WARM_UP_ROWS = 1000
DRAIN_SECONDS = 90
IDLE_SECONDS = 5
MANY, HOT = "many_keys", "one_key"
# What MariaDB says when it ends a transaction for another's sake: deadlock, lock wait, changed row.
LOCK_ERRORS = r"\((1213|1205|1020),"
RATIOS = {
    "relay_of_raw": ("relay", "raw_relay"),
    "consumer_of_raw": ("consumer", "raw_consumer"),
    "pipeline_of_raw": ("pipeline", "raw_pipeline"),
    "one_key_of_many": ("one_key_pipeline", "pipeline"),
    "four_relays_of_one": ("four_relays", "relay"),
}
Figures = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is written in one run."""

    relay_rows: int
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
        self._append: dict[str, float] = {}
        self._started = time.monotonic()
        self._table = OutboxTable(corner.connect(), check_alive=installation.check_alive)

    def measure(self, *, runs: int, may_go_on: Callable[[], bool], load: Load) -> dict[str, object]:
        """Return the medians over the runs, and their ratios to the floor."""
        self._prepare()
        found: list[Figures] = []
        for _ in range(runs):
            try:
                found.append({**self._run_product(), **self._run_four_relays(), **self._run_floor()})
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
            "lock_errors_in_logs": self._installation.count_lines(LOCK_ERRORS),
            "append": self._append,
            "by_run": found,
            "server": self._table.server(),
            "load": load.report(),
        }

    def profile(self) -> tuple[str, str]:
        """Return where relay and consumer spend their time on one backlog."""
        self._prepare()
        self._fill(MANY, self._effort.relay_rows, self._new_topic())
        relay = self._installation.run("profile-relay", "-m bench.profiled relay")
        self._fill(MANY, self._rows)
        self._installation.run("profile-relay", "-m bench.profiled relay")
        consumer = self._installation.run("profile-consumer", f"-m bench.profiled consumer --events {self._rows}")
        return relay, consumer

    def _prepare(self) -> None:
        """Write the backlogs once, and find out how many rows keep the consumer busy for a while."""
        rows = self._effort.relay_rows
        self._table.clear()
        self._installation.statements.begin()
        self._installation.run("writer", f"-m bench.writer --backlog {rows}")
        self._append = {"bulk_inserts_per_event": self._inserts() / rows}
        self._table.keep_backlog(MANY)
        self._table.clear()
        self._installation.run("writer", f"-m bench.writer --backlog {rows} --keys 1")
        self._table.keep_backlog(HOT)
        with _Running(self._installation, "consumer", "worker"):
            self._fill(MANY, WARM_UP_ROWS)
            until = self._wait("pending", "published")
            rate = self._table.consume_rate("published_at", until)
        self._rows = max(WARM_UP_ROWS, min(int(rate * self._effort.consumer_seconds), rows))

    def _inserts(self) -> int:
        """Return how many INSERTs the writer's appends have sent; two more made its users and conversations."""
        return self._installation.statements.since("writer")["insert"] - 2

    def _run_product(self) -> Figures:
        figures: Figures = {}
        side_topic, rows = self._new_topic(), self._effort.relay_rows
        with _Running(self._installation, "worker"):
            self._fill(MANY, rows, side_topic)
            self._wait("pending")
            self._note(figures, "relay", self._table.publish_rate())
            self._note_statements(figures, "worker", rows)
            self._fill(MANY, self._rows)
            self._wait("pending")
        with _Running(self._installation, "consumer"):
            self._installation.statements.begin()
            until = self._wait("pending", "published")
            self._note(figures, "consumer", self._table.consume_rate("consumed_at", until))
            self._note_statements(figures, "consumer", self._rows)
            self._check_books()
            with _Running(self._installation, "worker"):
                self._run_pipeline(figures, "pipeline", MANY)
                self._run_pipeline(figures, "one_key_pipeline", HOT)
                figures |= self._run_steady("")
                self._run_idle(figures)
        return figures

    def _run_pipeline(self, figures: Figures, name: str, backlog: str) -> None:
        self._fill(backlog, self._rows)
        until = self._wait("pending", "published")
        self._note(figures, name, self._table.consume_rate("published_at", until))
        self._check_books()

    def _run_idle(self, figures: Figures) -> None:
        self._table.clear()
        self._installation.statements.begin()
        time.sleep(IDLE_SECONDS)
        for name in ("worker", "consumer"):
            count = queries(self._installation.statements.since(name))
            self._note(figures, f"idle_{name}_queries_per_second", count / IDLE_SECONDS)

    def _run_four_relays(self) -> Figures:
        figures: Figures = {}
        names = [f"relay {number}" for number in range(1, RELAYS + 1)]
        rows, topic = self._effort.relay_rows, self._new_topic()
        with _Running(self._installation, *names, "beat", OUTBOX_RELAYS=str(RELAYS)):
            wait_until(self._are_all_slots_taken, seconds=30, what=f"{RELAYS} relays on their slots")
            self._fill(MANY, rows, topic)
            self._wait("pending")
            self._note(figures, "four_relays", self._rate_of_all_relays())
        return figures

    def _rate_of_all_relays(self) -> float:
        """
        Return rows a second while all of them are at work; of the whole of a short drain, where they never all are.

        They do not begin in the same moment, nor do their shares end in the same.
        """
        sql = "SELECT MIN(published_at), MAX(published_at) FROM agent_outbox_messages GROUP BY published_by"
        spans = self._table.rows(sql)
        first, last = max(span[0] for span in spans), min(span[1] for span in spans)
        if len(spans) < RELAYS or last <= first:
            return self._table.publish_rate()
        sql = "SELECT COUNT(*) FROM agent_outbox_messages WHERE published_at > %s AND published_at <= %s"
        count = int(self._table.rows(sql, first, last)[0][0])
        return round(count / float((last - first).total_seconds()), 1)

    def _are_all_slots_taken(self) -> bool:
        sql = "SELECT COUNT(DISTINCT owner) FROM outbox_workers WHERE kind = 'relay' AND lease_until > UTC_TIMESTAMP()"
        return self._table.rows(sql)[0][0] >= RELAYS

    def _run_floor(self) -> Figures:
        figures: Figures = {}
        topic, rows = self._new_topic(), self._effort.relay_rows
        with self._raw("relay", topic):
            self._fill(MANY, rows)
            self._wait("pending")
        self._note(figures, "raw_relay", self._table.publish_rate())
        with self._raw("consume", topic):
            until = self._wait("pending", "published")
        self._note(figures, "raw_consumer", self._table.consume_rate("consumed_at", until))
        self._check_books()
        topic = self._new_topic()
        with self._raw("consume", topic), self._raw("relay", topic):
            self._run_pipeline(figures, "raw_pipeline", MANY)
            figures |= self._run_steady("raw_")
        return figures

    def _run_steady(self, prefix: str) -> Figures:
        figures: Figures = {}
        self._table.clear()
        self._installation.statements.begin()
        seconds = self._effort.steady_seconds
        output = self._installation.run("writer", f"-m bench.writer --rate {RATE} --seconds {seconds}")
        written = json.loads(output.splitlines()[-1])
        self._wait("pending", "published")
        self._check_books()
        if not prefix:
            self._append["single_inserts_per_event"] = self._inserts() / len(written["commits"])
        self._note(figures, f"{prefix}written", written["rate"])
        for name, value in self._table.latencies(written["commits"]).items():
            self._note(figures, f"{prefix}{name}", value)
        return figures

    def _note(self, figures: Figures, name: str, value: float | None) -> None:
        """Keep a figure and show that the bench moves on."""
        figures[name] = value
        print(f"  {time.monotonic() - self._started:4.0f} s  {name} {value}", file=sys.stderr, flush=True)

    def _note_statements(self, figures: Figures, process: str, rows: int) -> None:
        counts = self._installation.statements.since(process)
        self._note(figures, f"{process}_statements_per_message", round(queries(counts) / rows, 4))
        self._note(figures, f"{process}_with_commits_per_message", round(counts.total() / rows, 4))

    def _fill(self, backlog: str, rows: int, topic: str = "") -> None:
        """Make so many rows ready at once; the floor's relay is told its topic and asks no row."""
        self._table.refill(backlog, rows, topic or self._corner.topic)
        self._installation.statements.begin()
        self._corner.wake_relays()

    def _wait(self, *statuses: str) -> float:
        return self._table.wait_until_none(*statuses, seconds=DRAIN_SECONDS)

    def _check_books(self) -> None:
        """A figure counts only when the work behind it was done, once and in order."""
        wrong = {name: count for name, count in self._table.count_wrong().items() if count}
        if wrong:
            raise BenchFailed(f"the books do not balance: {wrong}")

    def _raw(self, part: str, topic: str) -> "_Raw":
        self._raw_number += 1
        group = f"{self._corner.name}.{self._raw_number}"
        return _Raw(self._installation, f"raw-{part}", f"-m bench.raw {part} --topic {topic} --group {group}")

    def _new_topic(self) -> str:
        self._raw_number += 1
        topic = f"{self._corner.name}.side.{self._raw_number}"
        self._corner.create_topic(topic)
        return topic


class _Running:
    """Processes of the product, from ready to stopped."""

    def __init__(self, installation: Installation, *names: str, **variables: str) -> None:
        self._installation = installation
        self._names = names
        self._variables = variables

    def __enter__(self) -> None:
        self._installation.start(*self._names, **self._variables)

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
