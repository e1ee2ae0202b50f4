"""Draws a run from its seed: who asks what, who reads along from where, and which faults happen when. Pure."""

import random
from dataclasses import dataclass

from tests.faults.plan import Fault

WEBS = ("web-a", "web-b")
EXECUTORS = ("executor-a", "executor-b")
# As many characters the scripted upstream says at once when it repeats a message.
PIECE = 8
# What it says when a message has no directive: what the user says to continue is the product's own.
DEFAULT_TOKENS = 30
DEFAULT_MODEL = f"scripted:tokens={DEFAULT_TOKENS},delay_ms=15"
# Places in the product where a process kills or stops itself: see hooks/chat_injections.py.
POINTS = ("after-begin", "after-begin", "after-claim", "word", "word", "word", "after-save", "before-end", "after-end")

# Before the first word another executor takes a run over: two of them at once is what the fence is for.
FREEZE_POINTS = ("after-begin", "after-begin", "after-claim", "word", "after-save", "before-end")

# Kind of fault → how often it is drawn. The first group needs nothing but the processes.
LIGHT = {
    "kill": 20,
    "kill-at-point": 24,
    "stop": 9,
    "freeze": 6,
    "freeze-at-point": 12,
    "kill-worker": 2,
    "kill-consumer": 2,
    "kill-connections": 6,
    "empty-redis": 6,
    "duplicates": 5,
    "skew": 8,
}
# In this share of the runs an executor stands still before a first word until another has taken its run over, and goes
# on at that moment: then only the fence keeps two from writing one run. At a moment drawn ahead they seldom meet.
OVERTAKEN = 0.4
# Servers of our own are needed for these.
SERVERS = {"freeze-database": 4, "freeze-redis": 7, "restart-redis": 9, "restart-database": 2}
# Of these a run's owner knows nothing: it must not end because of them.
HARMLESS_TO_RUNS = {
    "kill-worker",
    "kill-consumer",
    "empty-redis",
    "duplicates",
    "freeze-redis",
    "restart-redis",
}
_WORDS = ("lecture", "课程", "gym", "图书馆", "👩‍👩‍👧", "deadline", "周三", "é", "exam", "📚", "plan")


@dataclass(frozen=True)
class Scale:
    """How long things take. `span_seconds`: within it the faults begin."""

    lease_seconds: int
    span_seconds: float
    most_students: int
    most_steps: int
    most_faults: int
    # until everything has ended, counted from the moment everything runs again
    limit_seconds: float


# The promise is 30 s with a lease of 12 s.
SHORT = Scale(lease_seconds=3, span_seconds=1.8, most_students=9, most_steps=2, most_faults=5, limit_seconds=21.0)
LONG = Scale(lease_seconds=12, span_seconds=12.0, most_students=12, most_steps=5, most_faults=8, limit_seconds=30.0)


@dataclass(frozen=True)
class Answer:
    """How the upstream answers one message: it repeats it in pieces, or breaks off after some of them."""

    pieces: int
    delay_ms: int
    first_ms: int
    ending: str = "whole"  # whole | cut | quiet_cut | stall | error
    after: int = 0
    usage: str = "own"

    def directive(self) -> str:
        """What the message says to the upstream."""
        words = [f"text=echo numbered delay_ms={self.delay_ms} first_ms={self.first_ms} usage={self.usage}"]
        if self.ending != "whole":
            words.append({"error": "error=overloaded"}.get(self.ending, self.ending) + f" after={self.after}")
        return f"[[{' '.join(words)}]]"


@dataclass(frozen=True)
class Drop:
    """A reader closes its connection after so many events and comes back."""

    after_events: int
    away_seconds: float


@dataclass(frozen=True)
class Device:
    """Somebody who reads one answer: the first is who asked, others come `at` seconds later."""

    web: int
    at: float = 0.0
    drops: tuple[Drop, ...] = ()
    tells_by: str = "header"  # header | query: how it says where it is

    @property
    def is_asker(self) -> bool:
        return self.at == 0.0


@dataclass(frozen=True)
class Step:
    """One thing a student does, and who reads the answer."""

    kind: str  # say | regenerate | continue
    pause_seconds: float
    message: str
    answer: Answer
    devices: tuple[Device, ...]
    stops_at: float | None = None
    stops_from: int = 0


@dataclass(frozen=True)
class Plan:
    """One run. `mode`: who executes, the web processes themselves or processes of their own."""

    seed: int
    mode: str
    students: tuple[tuple[Step, ...], ...]
    faults: tuple[Fault, ...]

    @property
    def kinds(self) -> frozenset[str]:
        """What happens in the run."""
        steps = [step for student in self.students for step in student]
        drawn = {self.mode, *(fault.kind for fault in self.faults), *(step.kind for step in steps)}
        drawn |= {step.answer.ending for step in steps} | {"stop-run" for step in steps if step.stops_at is not None}
        drawn |= {"drop" for step in steps for device in step.devices if device.drops}
        return frozenset(drawn | {"second-device" for step in steps if len(step.devices) > 1})


def draw_plan(*, seed: int, scale: Scale = SHORT, has_servers: bool = True) -> Plan:
    """Draw one run. `has_servers`: whether database and Redis may be frozen and restarted."""
    # five runs of one mode in a row, because the other mode needs other processes
    mode = random.Random(f"mode {seed // 5}").choice(("web", "separate"))
    dice = random.Random(f"chat {seed}")
    students = tuple(
        tuple(_draw_step(dice, f"s{seed}-p{person}-{number}", number) for number in range(_count(dice, scale)))
        for person in range(dice.randint(5, scale.most_students))
    )
    return Plan(seed, mode, students, _draw_faults(dice, scale, mode, has_servers))


def _count(dice: random.Random, scale: Scale) -> int:
    return dice.randint(1, scale.most_steps)


def _draw_step(dice: random.Random, name: str, number: int) -> Step:
    kind = "say" if number == 0 else dice.choice(("say", "regenerate", "regenerate", "continue", "continue"))
    answer = _draw_answer(dice)
    asker = Device(web=dice.randrange(2), drops=_draw_drops(dice), tells_by=dice.choice(("header", "query")))
    others = tuple(
        Device(
            web=dice.randrange(2),
            at=round(dice.uniform(0.01, 2.5), 3),
            drops=_draw_drops(dice),
            tells_by=dice.choice(("header", "query")),
        )
        for _ in range(dice.choice((0, 0, 1, 1, 2)))
    )
    return Step(
        kind=kind,
        pause_seconds=round(dice.choice((0.0, dice.uniform(0.0, 1.0))), 3),
        message=_draw_message(dice, name, answer),
        answer=answer,
        devices=(asker, *others),
        stops_at=round(dice.uniform(0.0, 1.5), 3) if dice.random() < 0.2 else None,
        stops_from=dice.randrange(2),
    )


def _draw_answer(dice: random.Random) -> Answer:
    pieces = dice.randint(12, 50)
    ending = dice.choice(("whole",) * 8 + ("cut", "quiet_cut", "stall", "error"))
    return Answer(
        pieces=pieces,
        delay_ms=dice.choice((0, 5, 10, 20, 40)),
        first_ms=dice.choice((0, 0, 50, 300, 700)),
        ending=ending,
        after=dice.randint(1, pieces - 1),
        usage=dice.choice(("own", "own", "last", "none")),
    )


def _draw_message(dice: random.Random, name: str, answer: Answer) -> str:
    text = f"{answer.directive()} {name}"
    while len(text) < answer.pieces * PIECE:
        text += " " + dice.choice(_WORDS)
    return text[: answer.pieces * PIECE - 1].rstrip() + "."


def _draw_drops(dice: random.Random) -> tuple[Drop, ...]:
    return tuple(
        Drop(dice.randint(0, 25), round(dice.choice((0.0, dice.uniform(0.0, 1.5))), 3))
        for _ in range(dice.choice((0, 0, 1, 2)))
    )


def _draw_faults(dice: random.Random, scale: Scale, mode: str, has_servers: bool) -> tuple[Fault, ...]:
    weights = LIGHT | (SERVERS if has_servers else {})
    kinds = dice.choices(list(weights), list(weights.values()), k=dice.randint(3, scale.most_faults))
    faults = [_draw_fault(dice, kind, scale, mode) for kind in kinds]
    if dice.random() < OVERTAKEN:
        owner, point = (dice.choice(WEBS), "after-begin") if mode == "web" else (dice.choice(EXECUTORS), "after-claim")
        # the longest that it waits for another
        faults.append(Fault("overtaken", 0.0, scale.lease_seconds + 8.0, owner, f"{point} stop 1"))
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _draw_fault(dice: random.Random, kind: str, scale: Scale, mode: str) -> Fault:
    at = round(dice.uniform(0.05, scale.span_seconds), 3)
    owners = WEBS if mode == "web" else EXECUTORS
    target = dice.choice(WEBS + owners + owners)
    short = dice.uniform(0.1, 1.5)
    # another takes a run over between one and three seconds behind the lease: wake up about then
    beyond_lease = scale.lease_seconds + dice.uniform(1.0, 3.0)
    point, times = dice.choice(FREEZE_POINTS if kind == "freeze-at-point" else POINTS), dice.choice((1, 1, 2))
    if point == "word":
        times = dice.choice((1, 1, 2, 5, 20, 60))
    passer = dice.choice(WEBS if point == "after-begin" else owners)
    clock = str(dice.choice((-300, -20, -5, 5, 20, 300)))
    long_freeze = beyond_lease if dice.random() < 0.8 else short
    restart = dice.choice(("kill", "stop"))
    fixed = {
        "kill": Fault(kind, at, short, target),
        "kill-at-point": Fault(kind, at / 2, short, passer, f"{point} kill {times}"),
        "stop": Fault(kind, at, 0.0, target),
        "freeze": Fault(kind, at, long_freeze, target),
        "freeze-at-point": Fault(kind, at / 2, long_freeze, passer, f"{point} stop {times}"),
        "kill-worker": Fault(kind, at, short, "worker"),
        "kill-consumer": Fault(kind, at, short, "consumer"),
        "duplicates": Fault(kind, at, 0.0, detail=str(dice.choice((5, 30, 100)))),
        "skew": Fault(kind, at / 3, dice.uniform(0.5, 3.0), dice.choice((target, target, target, "worker")), clock),
        "restart-redis": Fault(kind, at, short, detail=restart),
        "restart-database": Fault(kind, at, short, detail=restart),
    }
    return fixed.get(kind) or Fault(kind, at, short)
