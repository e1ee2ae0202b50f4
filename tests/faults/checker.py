"""Judges the end of a run: pure functions over what was committed and what the database holds in the end."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

FORWARD = {
    ("pending", "pending"),  # let go by whoever had claimed it
    ("pending", "published"),
    ("pending", "consumed"),
    ("published", "consumed"),
    ("published", "pending"),
    ("pending", "dead"),
    ("published", "dead"),
}


@dataclass(frozen=True)
class Violation:
    """A broken promise."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class Entry:
    """One committed event, from the journal that was written in its transaction."""

    chat_id: str
    place: int
    event_id: str
    tokens: int


@dataclass(frozen=True)
class Change:
    """One change of a row's status, noted by a trigger in the same transaction."""

    event_id: str
    old: str
    new: str
    is_ready: bool = False
    # where the broker keeps the message: an offset in the key's partition
    place: int | None = None


@dataclass(frozen=True)
class End:
    """The end state of one run, and what led there."""

    journal: list[Entry]
    # what writers were told: event ids whose commit returned, and whose transaction was rolled back on purpose
    committed: set[str]
    rolled_back: set[str]
    # event id → status, for every outbox row of the run
    rows: dict[str, str]
    # conversation → its messages' event ids in the order of their rows
    histories: dict[str, list[str]]
    # conversation → (message_count, tokens_total); user → token_usage; conversation → user
    chats: dict[str, tuple[int, int]]
    users: dict[int, int]
    owners: dict[str, int]
    changes: list[Change] = field(default_factory=list)
    # what an operator sent round again, what was planned to die, what was seen while the run went on
    requeued: set[str] = field(default_factory=set)
    may_die: set[str] = field(default_factory=set)
    holds: int = 0
    observed: list[Violation] = field(default_factory=list)


def check(end: End) -> list[Violation]:
    """Return every broken promise of a run."""
    return [
        *end.observed,
        *_check_commits(end),
        *_check_effects(end),
        *_check_order(end),
        *_check_publishing(end),
        *_check_counters(end),
        *_check_rows(end),
        *_check_changes(end),
    ]


def _check_commits(end: End) -> Iterable[Violation]:
    known = {entry.event_id for entry in end.journal}
    for event_id in sorted(end.committed - known):
        yield Violation("commit-lost", f"{event_id} was committed and the database has lost it")
    for event_id in sorted(end.rolled_back & known):
        yield Violation("rollback-kept", f"{event_id} was rolled back and exists")


def _check_effects(end: End) -> Iterable[Violation]:
    known = {entry.event_id for entry in end.journal}
    effects = Counter(event_id for ids in end.histories.values() for event_id in ids)
    for event_id in sorted(known - effects.keys()):
        yield Violation("lost", f"{event_id} has no effect; its row: {end.rows.get(event_id, 'none')}")
    for event_id in sorted(effects.keys() - known):
        yield Violation("phantom", f"{event_id} has an effect and was never committed")
    for event_id, count in sorted(effects.items()):
        if count > 1:
            yield Violation("doubled", f"{event_id} has {count} effects")


def _check_order(end: End) -> Iterable[Violation]:
    expected: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for entry in end.journal:
        expected[entry.chat_id].append((entry.place, entry.event_id))
    for chat_id, places in sorted(expected.items()):
        wanted = [event_id for _, event_id in sorted(places)]
        present = set(wanted)
        # twice is another promise, and so is not at all
        got = list(dict.fromkeys(event_id for event_id in end.histories.get(chat_id, []) if event_id in present))
        here = set(got)
        wanted = [event_id for event_id in wanted if event_id in here]
        if got != wanted:
            first = next(n for n, pair in enumerate(zip(got, wanted, strict=False)) if pair[0] != pair[1])
            yield Violation("order", f"{chat_id} at {first}: {got[first]} came, {wanted[first]} was committed first")


def _check_publishing(end: End) -> Iterable[Violation]:
    """The first message of each event stands in its partition in the order of commits, where its place is known."""
    places: dict[str, int | None] = {}
    for change in end.changes:
        places.setdefault(change.event_id, change.place if change.new == "published" else None)
    last: dict[str, tuple[int, str]] = {}
    for entry in sorted(end.journal, key=lambda entry: entry.place):
        place = places.get(entry.event_id)
        if place is None:
            continue
        before, event_id = last.get(entry.chat_id, (-1, ""))
        if place < before:
            yield Violation("overtaken", f"{entry.event_id} was published behind {event_id}, which was committed later")
        last[entry.chat_id] = max((before, event_id), (place, entry.event_id))


def _check_counters(end: End) -> Iterable[Violation]:
    tokens_of = {entry.event_id: entry.tokens for entry in end.journal}
    by_user: Counter[int] = Counter()
    for chat_id, counters in sorted(end.chats.items()):
        ids = end.histories.get(chat_id, [])
        tokens = sum(tokens_of.get(event_id, 0) for event_id in ids)
        by_user[end.owners[chat_id]] += tokens
        if counters != (len(ids), tokens):
            yield Violation("counters", f"{chat_id} counts {counters}, its messages give {(len(ids), tokens)}")
    for user, usage in sorted(end.users.items()):
        if usage != by_user[user]:
            yield Violation("counters", f"user {user} counts {usage} tokens, messages give {by_user[user]}")


def _check_rows(end: End) -> Iterable[Violation]:
    known = {entry.event_id for entry in end.journal}
    if known != end.rows.keys():
        yield Violation("rows", f"rows without a commit or the reverse: {sorted(known ^ end.rows.keys())[:5]}")
    for event_id, status in sorted(end.rows.items()):
        if status != "consumed":
            yield Violation("unfinished", f"{event_id} is {status} in the end")
    if end.holds:
        yield Violation("hold-left", f"{end.holds} keys are blocked in the end and nothing waits")


def _check_changes(end: End) -> Iterable[Violation]:
    for change in end.changes:
        step = (change.old, change.new)
        if step == ("dead", "pending"):
            if change.event_id not in end.requeued:
                yield Violation("backwards", f"{change.event_id} left `dead` and nobody asked for it")
        elif step not in FORWARD:
            yield Violation("backwards", f"{change.event_id} went from {change.old} to {change.new}")
        elif change.new == "dead" and change.event_id not in end.may_die:
            yield Violation("dead", f"{change.event_id} died of nothing permanent")
        elif step == ("published", "pending") and change.is_ready:
            # Nothing here loses messages that the broker has, so the net below the rope must hold nobody.
            yield Violation("rescued", f"{change.event_id} was published, not delivered, and found by the rescan")


def count_steps(changes: Iterable[Change]) -> Mapping[str, int]:
    """How often each change happened, for the report."""
    return Counter(f"{change.old} → {change.new}" for change in changes)
