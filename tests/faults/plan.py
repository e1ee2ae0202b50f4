"""Draws a run from its seed: what is written, and which faults happen when. Pure: the same seed, the same plan."""

import random
from dataclasses import dataclass, field

WRITERS = 2
THREADS = 3
RELAYS = ("relay-a", "relay-b")
CONSUMERS = ("consumer-a", "consumer-b")
RELAY_POINTS = ("before-publish", "after-publish")
CONSUMER_POINTS = ("in-transaction", "before-acknowledge", "after-acknowledge")

# Kind of fault → how often it is drawn. The first group needs nothing but the processes.
LIGHT = {
    "kill-relay": 8,
    "kill-relay-at-point": 8,
    "freeze-relay": 3,
    "freeze-relay-at-point": 4,
    "kill-consumer": 4,
    "kill-consumer-at-point": 6,
    "freeze-consumer": 3,
    "freeze-consumer-at-point": 3,
    "kill-beat": 4,
    "kill-writer": 6,
    "stop-relay": 4,
    "stop-consumer": 4,
    "kill-connections": 10,
    "empty-redis": 5,
    "rebalance": 5,
    "duplicates": 10,
    "skew": 8,
    "full-queue": 8,
    "pause": 4,
}
# Servers of our own are needed for these.
SERVERS = {"freeze-database": 5, "restart-redis": 6, "freeze-redis": 4, "freeze-broker": 6}
# Each costs several seconds.
HEAVY = {"restart-database": 2, "restart-broker": 1}
# Not faults of a moment: they are part of what is written.
WRITTEN = ("late-commit", "rollback", "transient-error", "permanent-error", "slow-handler")


@dataclass(frozen=True)
class Scale:
    """How long things take. `span_seconds`: within it the faults begin, while the writers write."""

    lease_seconds: float
    span_seconds: float
    events: int
    fewest_faults: int
    most_faults: int


# A thousand of these are affordable; the product's leases are shortened to match (campaign.py).
SHORT = Scale(lease_seconds=3.0, span_seconds=1.0, events=240, fewest_faults=2, most_faults=5)
# The product's own leases.
LONG = Scale(lease_seconds=10.0, span_seconds=12.0, events=4000, fewest_faults=5, most_faults=12)


@dataclass(frozen=True)
class Fault:
    """Something bad: begins `at` seconds into the run, lasts `seconds`."""

    kind: str
    at: float
    seconds: float = 0.0
    target: str = ""
    detail: str = ""


@dataclass(frozen=True)
class NewEvent:
    """One event to write: its number in the run, its conversation, and what its handler is to do first."""

    number: int
    chat: int
    tokens: int
    error: str = ""


@dataclass(frozen=True)
class Transaction:
    """Events written together by one thread of one writer."""

    writer: int
    thread: int
    pause_seconds: float
    hold_seconds: float
    rolls_back: bool
    events: tuple[NewEvent, ...]


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    chats: int
    users: int
    transactions: tuple[Transaction, ...]
    faults: tuple[Fault, ...]
    kinds: frozenset[str] = field(default_factory=frozenset)


def draw_plan(*, seed: int, scale: Scale = SHORT, has_servers: bool = True) -> Plan:
    """Draw one run. `has_servers`: whether database, Redis and broker may be frozen and restarted."""
    dice = random.Random(f"faults {seed}")  # as a number, neighbouring seeds would begin alike
    chats, users = dice.randint(6, 24), dice.randint(1, 4)
    transactions = _draw_transactions(dice, scale, chats)
    faults = _draw_faults(dice, scale, has_servers)
    written = {name for name in WRITTEN if any(_shows(transaction, name) for transaction in transactions)}
    kinds = frozenset({fault.kind for fault in faults} | written)
    return Plan(seed, chats, users, transactions, faults, kinds)


def _draw_transactions(dice: random.Random, scale: Scale, chats: int) -> tuple[Transaction, ...]:
    # Each is drawn for the run as a whole: most runs have some of them, few have all.
    late, rollback = dice.choice((0.0, 0.01, 0.03)), dice.choice((0.0, 0.05, 0.15))
    errors = {
        "transient": dice.choice((0.0, 0.0, 0.006)),
        "permanent": dice.choice((0.0, 0.0, 0.0, 0.006)),
        "slow": dice.choice((0.0, 0.0, 0.002)),
    }
    hot = dice.choice((0.0, 0.3))
    drawn: list[Transaction] = []
    number = 0
    while number < scale.events:
        size = dice.choice((1, 1, 1, 2, 4, 8))
        touched = [
            0 if dice.random() < hot else dice.randrange(chats) for _ in range(min(size, dice.choice((1, 1, 2))))
        ]
        made = []
        for _ in range(size):
            tokens = dice.choice((0, 0, 7, 50))
            made.append(NewEvent(number, dice.choice(touched), tokens, _draw_error(dice, errors)))
            number += 1
        hold = dice.uniform(0.2, 1.0) if dice.random() < late else 0.0
        drawn.append(
            Transaction(
                writer=dice.randrange(WRITERS),
                thread=dice.randrange(THREADS),
                pause_seconds=dice.choice((0.0, 0.0, 0.0, 0.01, 0.03)),
                hold_seconds=hold,
                rolls_back=dice.random() < rollback,
                events=tuple(made),
            )
        )
    return tuple(drawn)


def _draw_error(dice: random.Random, chances: dict[str, float]) -> str:
    for name, chance in chances.items():
        if dice.random() < chance:
            amount = {"transient": f" {dice.randint(1, 2)}", "permanent": "", "slow": f" {dice.uniform(0.3, 1.5):.2f}"}
            return name + amount[name]
    return ""


def _shows(transaction: Transaction, name: str) -> bool:
    if name == "late-commit":
        return transaction.hold_seconds > 0
    if name == "rollback":
        return transaction.rolls_back
    return any(event.error and name.startswith(event.error.split()[0]) for event in transaction.events)


def _draw_faults(dice: random.Random, scale: Scale, has_servers: bool) -> tuple[Fault, ...]:
    weights = LIGHT | (SERVERS | HEAVY if has_servers else {})
    kinds = dice.choices(list(weights), list(weights.values()), k=dice.randint(scale.fewest_faults, scale.most_faults))
    faults = [_draw_fault(dice, kind, scale) for kind in kinds]
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _draw_fault(dice: random.Random, kind: str, scale: Scale) -> Fault:
    at = round(dice.uniform(0.05, scale.span_seconds), 3)
    is_relay = "relay" in kind
    target = dice.choice(RELAYS if is_relay else CONSUMERS)
    point = dice.choice(RELAY_POINTS if is_relay else CONSUMER_POINTS)
    beyond_lease = scale.lease_seconds + dice.uniform(0.2, 1.0)
    short = dice.uniform(0.2, 1.5)
    times = dice.randint(1, 2)
    if kind.endswith("-at-point"):
        verb = "kill" if kind.startswith("kill") else "stop"
        return Fault(kind, at / 2, short if verb == "kill" else beyond_lease, target, f"{point} {verb} {times}")
    if kind.startswith("freeze-"):
        is_process = is_relay or "consumer" in kind
        return Fault(
            kind, at, beyond_lease if is_process and dice.random() < 0.7 else short, target if is_process else ""
        )
    if kind == "kill-writer":
        return Fault(kind, at, 0.0, f"writer-{dice.randrange(WRITERS)}")
    if kind == "duplicates":
        return Fault(kind, at, 0.0, detail=str(dice.choice((5, 30, 100))))
    if kind == "skew":
        seconds = dice.choice((-300, -20, -5, 5, 20, 300))
        everybody = (*RELAYS, *CONSUMERS, *(f"writer-{number}" for number in range(WRITERS)))
        return Fault(kind, at / 3, dice.uniform(0.5, 2.0), dice.choice(everybody), str(seconds))
    if kind == "full-queue":
        return Fault(kind, at / 3, dice.uniform(0.5, 2.0), dice.choice(RELAYS), str(dice.choice((1, 5, 20))))
    if kind in HEAVY:
        return Fault(kind, at, dice.uniform(0.1, 2.0), detail=dice.choice(("kill", "stop")))
    named = kind.endswith(("-relay", "-consumer"))
    return Fault(kind, at, short, target if named else "")
