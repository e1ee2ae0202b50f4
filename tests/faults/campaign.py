"""Runs plans one after the other on one installation, and says what came of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.faults.checker import Violation, check, count_steps
from tests.faults.crew import Crew
from tests.faults.history import TABLES, History, OpenRow
from tests.faults.injector import Injector
from tests.faults.plan import LONG, SHORT, THREADS, WRITERS, Plan, Scale, draw_plan
from tests.faults.servers import Book, Servers
from tests.stack.processes import ROOT
from tests.stack.stack import _KEPT_VARIABLES
from tests.stack.waiting import wait_until

POLL_SECONDS = 0.05
WRITER_SECONDS = WARM_UP_SECONDS = 60
SETTINGS = {
    "OUTBOX_RELAYS": "2",
    # by age alone, for rows whose place in the broker is unknown: it must not repair what should not have happened
    "OUTBOX_RESCAN_SECONDS": "600",
    "DATABASE_READ_TIMEOUT_SECONDS": "5",
}
# The product's own, shortened in proportion.
SHORT_SETTINGS = {"OUTBOX_LEASE_SECONDS": str(round(SHORT.lease_seconds)), "OUTBOX_DELIVERY_TIMEOUT_SECONDS": "1"}


@dataclass
class Outcome:
    """What came of one run."""

    seed: int
    seconds: float
    settled_seconds: float
    events: int
    kinds: list[str]
    violations: list[Violation]
    steps: dict[str, int] = field(default_factory=dict)
    dead: int = 0
    problems: list[str] = field(default_factory=list)


class Campaign:
    """One installation and the runs on it."""

    def __init__(self, servers: Servers, folder: Path, *, scale: Scale = SHORT, mutant: str = "") -> None:
        self.servers = servers
        self.folder = folder
        self._scale = scale
        # "Nothing older than the lease and five seconds is stuck", counted from the moment everything runs again. A
        # broker that was restarted, or is not ours, has times that nothing here shortens: the product's own hold then.
        self._stuck_seconds = (scale if servers.has_faults else LONG).lease_seconds + 5
        # What a failed try may cost: its backoff, one second the first time and four the second, and the next sweep.
        self._retry_seconds = 3.0 if scale == SHORT else 5.0
        self._mutant = mutant
        self._book = Book(servers)
        self._orders = folder / "orders"
        self._number = 0

    @contextmanager
    def installation(self) -> Iterator[None]:
        """Migrate a database, start every process, and end them all."""
        for kind in ("points", "skew", "queue", "errors", "scripts"):
            (self._orders / kind).mkdir(parents=True, exist_ok=True)
        self.servers.open_corner()
        environment = self._environment()
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=ROOT, env=environment, check=True)
        for statement in TABLES:
            self._book.rows(statement)
        with Crew(environment, self.folder / "logs", is_cold=self._scale != SHORT) as self.crew:
            self.crew.ensure_running()
            self._warm_up()
            yield
        self.servers.close_corner()

    def _warm_up(self) -> None:
        """Let the first events through before the first fault: topics are made, clients connect, Java compiles."""
        plan = replace(draw_plan(seed=0, has_servers=False), faults=())
        history = History(self._book, plan, 0)
        self._start_writers(plan, history)
        everything = {history.event_id(number) for number in range(2 * SHORT.events)}
        wait_until(lambda: self._has_consumed(history, everything), WARM_UP_SECONDS, "the end of the warm-up")

    def _has_consumed(self, history: History, may_die: set[str]) -> bool:
        are_gone = not any(self.crew.is_running(f"writer-{number}") for number in range(WRITERS))
        return are_gone and not _stuck(history.open_rows(), may_die)

    def _environment(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            **({"FAULTS_MUTANT": self._mutant} if self._mutant else {}),
            **(SHORT_SETTINGS if self._scale == SHORT else {"FAULTS_REAL_TIMES": "1"}),
            "PYTHONPATH": str(ROOT / "tests" / "faults" / "hooks"),
            "PYTHONUNBUFFERED": "1",
            "FAULTS_FOLDER": str(self._orders),
            **({"FAULTS_SESSION_MS": "3000"} if self.servers.has_faults else {}),
            "DJANGO_SETTINGS_MODULE": "smartflow.settings",
            "SMARTFLOW_DATA_DIR": str(self._make_data_folder()),
            **self.servers.environment(),
            **SETTINGS,
        }

    def _make_data_folder(self) -> Path:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        return data

    def run(self, plan: Plan) -> Outcome:
        """Carry one plan out and judge its end."""
        started = time.monotonic()
        self._number += 1
        history = History(self._book, plan, self._number)
        journals = self._start_writers(plan, history)
        injector = Injector(self.crew, self.servers, self._book, self._orders)
        injector.begin(plan.faults)
        injector.wait_over()
        for number in range(WRITERS):
            if not self.crew.wait_gone(f"writer-{number}", WRITER_SECONDS):
                raise RuntimeError(f"writer-{number} does not end:\n{self.crew.log_tail(f'writer-{number}')}")
        healed = time.monotonic()
        may_die = self._marked(plan, history, "permanent")
        limit = self._stuck_seconds if "restart-broker" not in plan.kinds else LONG.lease_seconds + 5
        limit += self._retry_seconds * _count_failures(plan)
        observed = injector.violations + self._wait_settled(history, may_die, limit)
        settled = time.monotonic() - healed
        dead = [row for row in history.open_rows() if row.status == "dead"]
        if dead and not observed:
            observed = self._requeue(history, injector, may_die, limit)
        end = history.read_end(journals, requeued={row.event_id for row in dead}, may_die=may_die, observed=observed)
        violations = check(end)
        if violations:
            self._keep_evidence(plan, history, violations)
        return Outcome(
            seed=plan.seed,
            seconds=round(time.monotonic() - started, 2),
            settled_seconds=round(settled, 2),
            events=len(end.journal),
            kinds=sorted(plan.kinds),
            violations=violations,
            steps=dict(count_steps(end.changes)),
            dead=len(dead),
            problems=injector.problems,
        )

    def _start_writers(self, plan: Plan, history: History) -> list[Path]:
        journals = []
        scripts: list[list[list[dict[str, object]]]] = [[[] for _ in range(THREADS)] for _ in range(WRITERS)]
        for transaction in plan.transactions:
            events = []
            for event in transaction.events:
                event_id = history.event_id(event.number)
                if event.error:
                    (self._orders / "errors" / event_id).write_text(event.error)
                chat_id = history.chats[event.chat]
                events.append(
                    {
                        "event_id": event_id,
                        "chat_id": chat_id,
                        "user_id": history.owners[chat_id],
                        "run_id": event_id,
                        "tokens": event.tokens,
                        "message": ("[[fault]] " if event.error else "") + f"message {event.number} " + "x" * 200,
                    }
                )
            scripts[transaction.writer][transaction.thread].append(
                {
                    "pause_seconds": transaction.pause_seconds,
                    "hold_seconds": transaction.hold_seconds,
                    "rolls_back": transaction.rolls_back,
                    "events": events,
                }
            )
        for number, threads in enumerate(scripts):
            script = self._orders / "scripts" / f"writer-{number}.json"
            script.write_text(json.dumps(threads))
            journal = self._orders / "scripts" / f"journal-{number}.{self._number}"
            journals.append(journal)
            self.crew.start(f"writer-{number}", "writer", str(script), str(journal))
        return journals

    @staticmethod
    def _marked(plan: Plan, history: History, error: str) -> set[str]:
        return {
            history.event_id(event.number)
            for transaction in plan.transactions
            for event in transaction.events
            if event.error == error
        }

    def _wait_settled(self, history: History, may_die: set[str], limit: float) -> list[Violation]:
        """Wait until only what was planned to die is left, and what waits behind it; say what is stuck."""
        deadline = time.monotonic() + limit
        while True:
            seen = history.held_without_hold()
            if seen:
                return seen
            left = _stuck(history.open_rows(), may_die)
            if not left:
                return []
            self.crew.restart_ended()
            if time.monotonic() > deadline:
                what = f"{left[0].event_id} is {left[0].status}, {left[0].what}"
                return [Violation("stuck", f"{len(left)} rows after {limit:g} s; {what}")]
            time.sleep(POLL_SECONDS)

    def _requeue(self, history: History, injector: Injector, may_die: set[str], limit: float) -> list[Violation]:
        """Lift what makes events fail, send the dead ones round again and wait for them and their followers."""
        for event_id in may_die:  # also of those that wait behind a dead one and would die next
            (self._orders / "errors" / event_id).unlink(missing_ok=True)
        injector.manage("requeues", "outbox", "requeue", "--all", "--reason", "the error was lifted", "--yes")
        return self._wait_settled(history, set(), limit)

    def _keep_evidence(self, plan: Plan, history: History, violations: list[Violation]) -> None:
        """Keep plan, rows and logs of a run that broke a promise."""
        place = self.folder / "evidence" / f"{plan.seed}-{self._number}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "plan.txt").write_text("\n".join(str(fault) for fault in plan.faults))
        (place / "violations.txt").write_text("\n".join(str(violation) for violation in violations))
        (place / "rows.txt").write_text("\n".join(str(row) for row in history.open_rows()))
        changes = self._book.rows("SELECT * FROM faults_changes WHERE message_id > %s ORDER BY id", history.first_id)
        (place / "changes.txt").write_text("\n".join(str(change) for change in changes))
        for log in (self.folder / "logs").iterdir():
            lines = log.read_text(errors="replace").splitlines(keepends=True)
            (place / log.name).write_text("".join(line for line in lines if " received data={" not in line)[-40_000:])
        shutil.copytree(self._orders / "scripts", place / "scripts", dirs_exist_ok=True)

    def summarise(self, outcomes: list[Outcome], seconds: float) -> dict[str, object]:
        """The figures of the campaign."""
        return summarise(outcomes, seconds, self._count_messages())

    def _count_messages(self) -> int:
        """How many messages the topic holds; more than events are duplicates."""
        reader = Consumer({"bootstrap.servers": self.servers.kafka, "group.id": f"{self.servers.name}-count"})
        try:
            partitions = reader.list_topics(self.servers.topic, timeout=5).topics[self.servers.topic].partitions
            return sum(
                reader.get_watermark_offsets(TopicPartition(self.servers.topic, number), timeout=5)[1]
                for number in partitions
            )
        except KafkaException:
            return 0
        finally:
            reader.close()


def _count_failures(plan: Plan) -> int:
    """How many tries fail on purpose; of one key they wait one after the other."""
    errors = [event.error.split() for transaction in plan.transactions for event in transaction.events if event.error]
    return sum(int(error[1]) for error in errors if error[0] == "transient")


def _stuck(rows: list[OpenRow], may_die: set[str]) -> list[OpenRow]:
    """Those of the open rows that should have gone on: not dead as planned, and not held behind such a row."""
    blocked: set[str] = set()
    stuck = []
    for row in rows:
        if row.status == "dead" and row.event_id in may_die:
            blocked.add(row.key)
        elif not (row.is_held and row.key in blocked):
            stuck.append(row)
    return stuck


def summarise(outcomes: list[Outcome], seconds: float, messages: int) -> dict[str, object]:
    """The figures of a campaign."""
    settled = sorted(outcome.settled_seconds for outcome in outcomes) or [0.0]
    events = sum(outcome.events for outcome in outcomes)
    steps: Counter[str] = Counter()
    for outcome in outcomes:
        steps.update(outcome.steps)
    return {
        "runs": len(outcomes),
        "seconds": round(seconds, 1),
        "runs_per_minute": round(60 * len(outcomes) / seconds, 1),
        "events": events,
        "messages": messages,
        "duplicates": max(0, messages - events),
        "faults": dict(Counter(kind for outcome in outcomes for kind in outcome.kinds).most_common()),
        "steps": dict(steps),
        "dead_and_requeued": sum(outcome.dead for outcome in outcomes),
        "settled_seconds": {"median": settled[len(settled) // 2], "most": settled[-1]},
        "violating_runs": sum(bool(outcome.violations) for outcome in outcomes),
        "violations": dict(Counter(v.kind for outcome in outcomes for v in outcome.violations)),
        "seeds": [outcome.seed for outcome in outcomes if outcome.violations],
        "impossible_faults": sum(len(outcome.problems) for outcome in outcomes),
    }


def as_json(outcome: Outcome) -> str:
    """One line of the campaign's log."""
    return json.dumps({**asdict(outcome), "violations": [str(violation) for violation in outcome.violations]})
