"""Runs plans of chat runs one after the other on one installation, and says what came of it."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.checker import Violation
from tests.faults.crew import Cast, Crew
from tests.faults.servers import Book, Servers
from tests.faults_chat.checker import End, check, list_losses
from tests.faults_chat.injector import ChatInjector
from tests.faults_chat.nursery import READY
from tests.faults_chat.plan import DEFAULT_MODEL, EXECUTORS, SHORT, WEBS, Plan, Scale
from tests.faults_chat.records import TABLES, Records
from tests.faults_chat.visitors import Person, Visit, Visitors
from tests.scripted_model import running_scripted_model
from tests.stack.processes import ROOT
from tests.stack.stack import _KEPT_VARIABLES
from tests.stack.waiting import wait_until

POLL_SECONDS = 0.05
PEOPLE = 200
TITLES_SECONDS = 45
LEDGER_IN_ORDER = "Every sum is what the ledger says."
HOOKS = (ROOT / "tests" / "faults_chat" / "hooks", ROOT / "tests" / "faults" / "hooks")
SETTINGS = {
    "CHAT_SILENCE_TIMEOUT_SECONDS": "2",
    "CHAT_CONNECT_TIMEOUT_SECONDS": "2",
    "CHAT_DRAIN_SECONDS": "2",
    "DATABASE_READ_TIMEOUT_SECONDS": "5",
    "SMARTFLOW_MODEL_WORKER": DEFAULT_MODEL,
    "SMARTFLOW_MODEL_STRATEGIST": DEFAULT_MODEL,
    "OPENAI_API_KEY": "sk-scripted-0123456789",
    "OUTBOX_RESCAN_SECONDS": "600",
}
SHORT_SETTINGS = {"OUTBOX_LEASE_SECONDS": "3", "OUTBOX_DELIVERY_TIMEOUT_SECONDS": "1"}


class ChatCrew(Crew):
    """The processes of an installation that talks."""

    nursery = "tests.faults_chat.nursery"
    ready = READY


@dataclass
class Outcome:
    """What came of one run."""

    seed: int
    seconds: float
    # from the moment everything runs again: until every reader has its end, and until nothing is under way
    told_seconds: float
    settled_seconds: float
    runs: int
    connections: int
    kinds: list[str]
    violations: list[Violation]
    states: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    # seconds of what devices saw and nobody kept
    losses: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Campaign:
    """One installation and the runs on it."""

    def __init__(self, servers: Servers, folder: Path, *, scale: Scale = SHORT, mutant: str = "") -> None:
        self.servers = servers
        self.folder = folder
        self._scale = scale
        self._mutant = mutant
        self._book = Book(servers)
        self._orders = folder / "orders"
        self._ports = {name: _free_port() for name in WEBS}
        self._people: list[Person] = []
        self._variables: dict[str, str] = {}
        self._batches = 0
        self._number = 0

    @contextmanager
    def installation(self) -> Iterator[None]:
        """Migrate a database, start everybody whom both modes have, and end them all."""
        for kind in ("points", "skew", "queue", "errors", "people"):
            (self._orders / kind).mkdir(parents=True, exist_ok=True)
        (self.folder / "data").mkdir(exist_ok=True)
        self.servers.open_corner()
        with ExitStack() as stack:
            stack.callback(self.servers.close_corner)
            model = stack.enter_context(running_scripted_model())
            environment = self._variables = self._environment(model.base_url)
            migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
            subprocess.run(migrate, cwd=ROOT, env=environment, check=True)
            for statement in TABLES:
                self._book.rows(statement)
            cast = self._cast("web")
            self.crew = stack.enter_context(ChatCrew(environment, self.folder / "logs", cast=cast))
            self.crew.ensure_running()
            yield

    def _cast(self, mode: str) -> Cast:
        cast: Cast = {
            "worker": ("celery", ("--beat", "-n", "worker@faults")),
            "consumer": ("consumer", ()),
            **{name: ("web", (str(port), mode)) for name, port in self._ports.items()},
        }
        return cast | (dict.fromkeys(EXECUTORS, ("executor", ())) if mode == "separate" else {})

    def _environment(self, model_url: str) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            **({"FAULTS_MUTANT": self._mutant} if self._mutant else {}),
            **(SHORT_SETTINGS if self._scale == SHORT else {"FAULTS_REAL_TIMES": "1"}),
            **({"FAULTS_SESSION_MS": "3000"} if self.servers.has_faults else {}),
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in HOOKS),
            "PYTHONUNBUFFERED": "1",
            "FAULTS_FOLDER": str(self._orders),
            "DJANGO_SETTINGS_MODULE": "smartflow.settings",
            "SMARTFLOW_DATA_DIR": str(self.folder / "data"),
            "RATE_LIMITS": "off",
            "OPENAI_BASE_URL": model_url,
            "CHAT_RUN_LEASE_SECONDS": str(self._scale.lease_seconds),
            **self.servers.environment(),
            **SETTINGS,
        }

    def _take_mode(self, mode: str) -> None:
        """Let web processes and executors of this mode run, and nobody of the other."""
        cast = self._cast(mode)
        for name in {*self.crew.cast, *cast}:
            if self.crew.cast.get(name) != cast.get(name):
                self.crew.kill(name)
        self.crew.cast = cast
        self.crew.ensure_running()

    def _invite(self, count: int) -> list[Person]:
        """People who have done nothing yet."""
        if len(self._people) < count:
            self._batches += 1
            place = self._orders / "people" / str(self._batches)
            self.crew.start("people", "people", f"person-{self._batches}", str(PEOPLE), str(place))
            wait_until(place.exists, 60, "new users")
            self._people += [Person(*values) for values in json.loads(place.read_text())]
        taken, self._people = self._people[:count], self._people[count:]
        return taken

    def run(self, plan: Plan) -> Outcome:
        """Carry one plan out and judge its end."""
        self._number += 1
        self._take_mode(plan.mode)
        people = self._invite(len(plan.students))
        started = time.monotonic()
        records = Records(self._book, [person.user_id for person in people])
        injector = ChatInjector(self.crew, self.servers, self._book, self._orders)
        visitors = Visitors(plan, people, self._ports)
        healed = asyncio.run(self._visit(plan, visitors, injector))
        told = time.monotonic() - healed
        observed = [*injector.violations, *self._wait_settled(records, healed)]
        settled = time.monotonic() - healed
        end = End(visit=visitors.visit, faults=plan.faults, observed=observed, **records.read())
        violations = check(end)
        if violations:
            self._keep_evidence(plan, end, records, violations)
        return Outcome(
            seed=plan.seed,
            seconds=round(time.monotonic() - started, 2),
            told_seconds=round(told, 2),
            settled_seconds=round(settled, 2),
            runs=len(end.runs),
            connections=sum(len(view.sights) for view in end.visit.views),
            kinds=sorted(plan.kinds),
            violations=violations,
            states=dict(Counter(run.error_code or run.state for run in end.runs.values())),
            refusals=end.visit.refusals,
            losses=[round(seconds, 3) for seconds in list_losses(end)],
            problems=injector.problems,
        )

    async def _visit(self, plan: Plan, visitors: Visitors, injector: ChatInjector) -> float:
        """Let students and faults go at it; return when everything ran again."""
        studying = asyncio.ensure_future(visitors.run())
        injector.begin(plan.faults)
        await asyncio.to_thread(injector.wait_over)
        healed = time.monotonic()
        visitors.end_within(self._scale.limit_seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(studying, self._scale.limit_seconds + 15)
        return healed

    def _wait_settled(self, records: Records, healed: float) -> list[Violation]:
        """Wait until no run is live and every message is written."""
        while (left := records.open()) and time.monotonic() < healed + self._scale.limit_seconds:
            self.crew.restart_ended()
            time.sleep(POLL_SECONDS)
        return [Violation("stuck", f"{left} after {self._scale.limit_seconds:g} s")] if left else []

    def _check_ledger(self) -> str:
        """Let the product compare all sums of the whole campaign, titles included, and return what it says."""
        busy = (
            "SELECT (SELECT COUNT(*) FROM agent_outbox_messages WHERE status <> 'consumed') + "
            "(SELECT COUNT(*) FROM agent_chats WHERE title_due_at IS NOT NULL)"
        )
        with contextlib.suppress(AssertionError):  # what is left is no difference yet
            wait_until(lambda: not self._book.rows(busy)[0][0], TITLES_SECONDS)
        command = [sys.executable, "manage.py", "check_ledger"]
        done = subprocess.run(command, cwd=ROOT, env=self._variables, capture_output=True, text=True)
        return (done.stdout.strip().splitlines() or [done.stderr[-500:]])[-1]

    def _keep_evidence(self, plan: Plan, end: End, records: Records, violations: list[Violation]) -> None:
        """Keep plan, rows, everything seen, and the logs of a run that broke a promise."""
        place = self.folder / "evidence" / f"{plan.seed}-{self._number}"
        place.mkdir(parents=True, exist_ok=True)
        steps = [f"{number} {step}" for number, student in enumerate(plan.students) for step in student]
        (place / "plan.txt").write_text("\n".join([plan.mode, *map(str, plan.faults), *steps]))
        (place / "violations.txt").write_text("\n".join(str(violation) for violation in violations))
        (place / "rows.txt").write_text(records.dump())
        (place / "seen.txt").write_text(_tell_seen(end.visit))
        for log in (self.folder / "logs").iterdir():
            lines = log.read_text(errors="replace").splitlines(keepends=True)
            (place / log.name).write_text("".join(line for line in lines if " received data={" not in line)[-60_000:])

    def summarise(self, outcomes: list[Outcome], seconds: float) -> dict[str, object]:
        """The figures of the campaign."""
        settled = sorted(outcome.settled_seconds for outcome in outcomes) or [0.0]
        ledger = self._check_ledger()
        losses = sorted(seconds for outcome in outcomes for seconds in outcome.losses)
        states: Counter[str] = Counter()
        refusals: Counter[str] = Counter()
        for outcome in outcomes:
            states.update(outcome.states)
            refusals.update(outcome.refusals)
        return {
            "runs": len(outcomes),
            "seconds": round(seconds, 1),
            "runs_per_minute": round(60 * len(outcomes) / seconds, 1),
            "chat_runs": sum(outcome.runs for outcome in outcomes),
            "connections": sum(outcome.connections for outcome in outcomes),
            "states": dict(states.most_common()),
            "refusals": dict(refusals.most_common()),
            "kinds": dict(Counter(kind for outcome in outcomes for kind in outcome.kinds).most_common()),
            "lost": {"devices": len(losses), "most_seconds": losses[-1] if losses else 0.0},
            "settled_seconds": {"median": settled[len(settled) // 2], "most": settled[-1]},
            "ledger": ledger,
            "violating_runs": sum(bool(outcome.violations) for outcome in outcomes) + (ledger != LEDGER_IN_ORDER),
            "violations": dict(Counter(v.kind for outcome in outcomes for v in outcome.violations)),
            "seeds": [outcome.seed for outcome in outcomes if outcome.violations],
            "impossible_faults": sum(len(outcome.problems) for outcome in outcomes),
        }


def _tell_seen(visit: Visit) -> str:
    lines = [f"accepted {accepted}" for accepted in visit.accepted]
    lines += [f"gave up: {what}" for what in visit.gave_up]
    for view in visit.views:
        lines.append(f"--- {view.run_id} {view.name}")
        for sight in view.sights:
            lines.append(f"  {sight.web} after {sight.after!r}: {sight.status} {sight.end} {sight.code}")
            lines += [f"    {event.at:.3f} {event.id} {event.data}" for event in sight.events]
    return "\n".join(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_json(outcome: Outcome) -> str:
    """One line of the campaign's log."""
    return json.dumps({**asdict(outcome), "violations": [str(violation) for violation in outcome.violations]})
