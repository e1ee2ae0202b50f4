"""Judges the end of a run: pure functions over what students saw, what they were promised, and what is stored."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.faults.checker import Violation
from tests.faults.plan import Fault
from tests.faults_chat.plan import DEFAULT_TOKENS, HARMLESS_TO_RUNS, PIECE
from tests.faults_chat.reading import Reading, Replaced, common_length, read_screens
from tests.faults_chat.visitors import Visit
from tests.scripted_model.frames import numbered_echo

TERMINAL = ("finished", "failed", "stopped")
# What a dead owner may have shown and nobody kept: nothing while Redis has it first, but for one that is only slow;
# without Redis the second between two saves, and the time that a save takes.
LOST_SECONDS = 0.25
LOST_SECONDS_WITHOUT_REDIS = 1.5
INTERRUPTED = ("run_interrupted", "run_not_started")
# The upstream was asked to break off: what a run may be told then.
_ECHO = re.compile(r"\A\[\[text=echo ")
_NUMBERED = re.compile(r"\A\[\[text=echo numbered ")
# Purposes of calls that are not the answer's.
_ASIDE = ("title", "compaction", "summary")


@dataclass(frozen=True)
class Run:
    """A row of chat_runs."""

    id: str
    chat_id: str
    user_id: int
    kind: str
    turn_no: int
    variant_no: int
    is_current: bool
    state: str
    is_live: bool
    input_text: str
    output_text: str
    error_code: str
    attempt: int
    total_tokens: int
    completion_tokens: int
    is_estimated: bool

    def whole_text(self, said: str | None = None) -> str:
        """What the upstream says when it is let finish: each piece tells which request it answers, by what was said."""
        if _ECHO.match(self.input_text):
            if not _NUMBERED.match(self.input_text):
                return self.input_text
            digits = re.match(r"\d{0,4}", self.output_text if said is None else said)
            return numbered_echo(self.input_text, int((digits[0] if digits else "").ljust(4, "0")))
        return "".join(f"token {number} " for number in range(1, DEFAULT_TOKENS + 1))

    @property
    def ending(self) -> str:
        """How the upstream was asked to end."""
        if not _ECHO.match(self.input_text):
            return "whole"
        words = self.input_text.partition("]]")[0].split()
        return next((word for word in ("cut", "quiet_cut", "stall", "error=overloaded") if word in words), "whole")


@dataclass(frozen=True)
class Entry:
    """A row of agent_timeline_events."""

    chat_id: str
    seq: int
    kind: str
    run_id: str
    content: str


@dataclass(frozen=True)
class Message:
    """A row of chat_histories."""

    chat_id: str
    event_id: str
    run_id: str
    role: str
    content: str
    tokens: int


@dataclass(frozen=True)
class Call:
    """A row of token_ledger."""

    entry_key: str
    user_id: int
    chat_id: str
    run_id: str
    purpose: str
    output_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Hold:
    """A row of token_holds."""

    hold_id: str
    user_id: int
    tokens: int
    charged: int | None
    is_settled: bool


@dataclass(frozen=True)
class Change:
    """One change of a row of chat_runs, noted by a trigger in the same transaction."""

    run_id: str
    old: str
    new: str
    old_epoch: int
    new_epoch: int
    had_spoken: bool
    is_cut: bool  # the text is no continuation of what it was
    owner: str = ""
    writer: str = ""  # the id of the process that wrote it; the owner's name has it in the middle
    says_more: bool = False

    @property
    def is_strangers(self) -> bool:
        """Whether somebody writes in the owner's place what only the owner may write."""
        is_owners = (self.says_more and self.new not in TERMINAL) or self.new == "finished"
        return is_owners and bool(self.writer.strip("0")) and self.writer not in self.owner.split(":")


@dataclass(frozen=True)
class Chat:
    """A row of agent_chats."""

    chat_id: str
    message_count: int
    tokens_total: int
    turn_count: int
    timeline_seq: int


@dataclass(frozen=True)
class End:
    """The end state of one run, and what led there."""

    visit: Visit
    runs: dict[str, Run]
    timeline: list[Entry]
    messages: list[Message]
    calls: list[Call]
    holds: list[Hold]
    chats: dict[str, Chat]
    users: dict[int, int]
    # user → (used, held) summed over the user's windows
    windows: dict[int, tuple[int, int]]
    # outbox rows that are not consumed: event id → status
    open_events: dict[str, str]
    changes: list[Change] = field(default_factory=list)
    faults: tuple[Fault, ...] = ()
    observed: list[Violation] = field(default_factory=list)

    @property
    def may_interrupt(self) -> bool:
        """Whether anything happened that an owner can lose a run by."""
        return any(fault.kind not in HARMLESS_TO_RUNS for fault in self.faults)

    @property
    def may_fail_otherwise(self) -> bool:
        """Whether the database was away: then a run may end by an error of its own."""
        return any("database" in fault.kind or fault.kind in ("kill-connections", "skew") for fault in self.faults)

    @property
    def lost_seconds(self) -> float:
        """How much of what was seen may be lost with an owner. With Redis and database away nothing keeps it longer."""
        if not any("redis" in fault.kind for fault in self.faults):
            return LOST_SECONDS
        return LOST_SECONDS_WITHOUT_REDIS + sum(5 + fault.seconds for fault in self.faults if "database" in fault.kind)


def list_losses(end: End) -> list[float]:
    """How many seconds of what each device saw are not kept, where anything is not."""
    return [
        seconds
        for screen in read_screens(end.visit.views)
        if screen.view.run_id in end.runs
        for seen in screen.texts
        for kept, seconds in [find_lost(end.runs[screen.view.run_id], seen)]
        if kept < len(seen.text)
    ]


def check(end: End) -> list[Violation]:
    """Return every broken promise of a run."""
    return [
        *end.observed,
        *_check_promises(end),
        *_check_states(end),
        *_check_texts(end),
        *_check_views(end),
        *_check_timeline(end),
        *_check_variants(end),
        *_check_messages(end),
        *_check_tokens(end),
        *_check_charges(end),
        *_check_holds(end),
        *_check_changes(end),
    ]


def _check_promises(end: End) -> Iterable[Violation]:
    """Whoever was told 2xx has a run, with what was said."""
    for accepted in end.visit.accepted:
        run = end.runs.get(accepted.run_id)
        if run is None:
            yield Violation("run-lost", f"{accepted.run_id} was accepted and does not exist")
        elif accepted.message and run.input_text != accepted.message:
            yield Violation("message-lost", f"{run.id}: {accepted.message!r} was said, {run.input_text!r} is kept")
    for what in end.visit.gave_up:
        yield Violation("no-end", what)
    for view in end.visit.views:
        if any(sight.status == 404 for sight in view.sights):
            yield Violation("run-lost", f"{view.run_id} was not found by {view.name}")


def _check_states(end: End) -> Iterable[Violation]:
    live = Counter(run.chat_id for run in end.runs.values() if run.is_live)
    for run in end.runs.values():
        if run.is_live or run.state not in TERMINAL:
            yield Violation("live", f"{run.id} is {run.state} in the end")
        if run.state == "finished" and run.ending in ("cut", "quiet_cut", "stall", "error=overloaded"):
            yield Violation("false-success", f"{run.id} is finished, and the upstream broke off by {run.ending}")
        if run.state == "failed":
            yield from _check_failure(end, run)
    for chat_id, count in live.items():
        if count > 1:
            yield Violation("two-live", f"{count} runs of {chat_id} are live")


def _check_failure(end: End, run: Run) -> Iterable[Violation]:
    if run.error_code in INTERRUPTED and not end.may_interrupt:
        yield Violation("interrupted", f"{run.id} was {run.error_code}, and nothing happened to its owner")
    elif run.ending == "whole" and run.error_code not in INTERRUPTED and not end.may_interrupt:
        yield Violation("failed", f"{run.id} failed with {run.error_code}, and nothing happened to it")
    elif run.error_code in ("internal_error", "answer_not_saved", "40911") and not end.may_fail_otherwise:
        yield Violation("failed", f"{run.id} failed with {run.error_code}")


def _check_texts(end: End) -> Iterable[Violation]:
    for run in end.runs.values():
        whole = run.whole_text()
        if not whole.startswith(run.output_text):
            place = common_length(run.output_text, whole)
            there = run.output_text[max(0, place - 20) : place + 20]
            yield Violation("text", f"{run.id}, attempt {run.attempt}: at {place} not what was said: {there!r}")
        elif run.state == "finished" and run.output_text != whole:
            yield Violation("short", f"{run.id} is finished with {len(run.output_text)} of {len(whole)} characters")


def _check_views(end: End) -> Iterable[Violation]:
    for screen in read_screens(end.visit.views):
        view, reading = screen.view, screen.reading
        run = end.runs.get(view.run_id)
        yield from reading.violations
        if run is None or run.is_live:
            continue
        for seen in screen.texts:
            yield from _check_prefix(end, run, view.name, seen)
        if reading.done_count:
            yield from _check_told(run, view.name, reading)


def _is_given_up(run: Run, seen: Replaced) -> bool:
    """Whether the run began anew behind it, because nobody who was left knew of it."""
    return seen.attempt < run.attempt


def find_lost(run: Run, seen: Replaced) -> tuple[int, float]:
    """How much of what was seen is kept, and how long the rest took to come."""
    kept = 0 if _is_given_up(run, seen) else common_length(seen.text, run.output_text)
    return kept, 0.0 if kept == len(seen.text) else seen.came_at[-1] - seen.came_at[kept]


def _check_prefix(end: End, run: Run, device: str, seen: Replaced) -> Iterable[Violation]:
    """What was seen is kept, but for the last second of an owner that died."""
    text = seen.text
    kept, seconds = find_lost(run, seen)
    if kept == len(text):
        return
    where = f"{run.id} {device}: {len(text)} characters were seen, {kept} of them are kept ({run.state})"
    if not run.whole_text(text).startswith(text):
        yield Violation("seen-wrong", f"{where}, and they are not what was said")
    elif _is_given_up(run, seen) and seconds > end.lost_seconds:
        yield Violation("executed-again", f"{where}, attempt {run.attempt}; what was seen came within {seconds:.2f} s")
    elif not _is_given_up(run, seen) and (
        not (run.error_code in INTERRUPTED or run.state == "stopped") or not end.may_interrupt
    ):
        yield Violation("seen-lost", f"{where}, error {run.error_code!r}")
    elif seconds > end.lost_seconds:
        yield Violation("seen-lost", f"{where}; the rest came within {seconds:.2f} s")


def _check_told(run: Run, device: str, reading: Reading) -> Iterable[Violation]:
    if reading.done_count > 1:
        yield Violation("end-twice", f"{run.id} {device} was told the end {reading.done_count} times")
    if reading.text != run.output_text:
        yield Violation(
            "told-other", f"{run.id} {device} ends with {len(reading.text)} characters, {len(run.output_text)} are kept"
        )
    wanted = {"finished": "stop", "stopped": "stopped", "failed": run.error_code}[run.state]
    if reading.finish != wanted:
        yield Violation("told-other", f"{run.id} {device} was told {reading.finish!r}, it is {run.state} {wanted!r}")


def _check_timeline(end: End) -> Iterable[Violation]:
    by_chat: defaultdict[str, list[int]] = defaultdict(list)
    said: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in end.timeline:
        by_chat[entry.chat_id].append(entry.seq)
        said[entry.run_id, entry.kind].append(entry.content)
    yield from _check_seqs(end, by_chat)
    for run in end.runs.values():
        users = [run.input_text] if run.kind == "turn" else []
        if said[run.id, "user_text"] != users:
            yield Violation("timeline", f"{run.id} ({run.kind}) has {len(said[run.id, 'user_text'])} user_text")
        answers = [run.output_text] if run.state in TERMINAL else []
        if said[run.id, "assistant_text"] != answers:
            found = [len(text) for text in said[run.id, "assistant_text"]]
            yield Violation("timeline", f"{run.id} ({run.state}): answers of {found} for {len(run.output_text)}")


def _check_seqs(end: End, by_chat: Mapping[str, list[int]]) -> Iterable[Violation]:
    for chat_id, chat in end.chats.items():
        seqs = sorted(by_chat[chat_id])
        if seqs != list(range(1, len(seqs) + 1)) or chat.timeline_seq != len(seqs):
            yield Violation("timeline", f"{chat_id} has seq {seqs}, its last is {chat.timeline_seq}")


def _check_variants(end: End) -> Iterable[Violation]:
    turns = defaultdict(list)
    for run in end.runs.values():
        turns[run.chat_id, run.turn_no].append(run)
    for (chat_id, turn_no), variants in turns.items():
        if sum(run.is_current for run in variants) != 1:
            yield Violation("variants", f"turn {turn_no} of {chat_id} has {len(variants)}, not one of them current")


def _check_messages(end: End) -> Iterable[Violation]:
    by_event = Counter(message.event_id for message in end.messages)
    text_of = {message.event_id: message for message in end.messages}
    for event_id, count in by_event.items():
        if count > 1:
            yield Violation("message-twice", f"{event_id} was written {count} times")
    for run in end.runs.values():
        asked, answered = text_of.get(f"{run.id}:user"), text_of.get(f"{run.id}:assistant")
        if run.kind == "turn" and (asked is None or asked.content != run.input_text):
            yield Violation("message-lost", f"{run.id}: the history has {asked}")
        if run.output_text and (answered is None or answered.content != run.output_text):
            yield Violation("answer-lost", f"{run.id}: {len(run.output_text)} characters, the history has {answered}")
    yield from _check_counts(end)


def _check_counts(end: End) -> Iterable[Violation]:
    for event_id, status in sorted(end.open_events.items()):
        yield Violation("unfinished", f"{event_id} is {status} in the end")
    counts = Counter(message.chat_id for message in end.messages)
    for chat_id, chat in end.chats.items():
        if chat.message_count != counts[chat_id]:
            yield Violation("counters", f"{chat_id} counts {chat.message_count} messages and has {counts[chat_id]}")


def _check_tokens(end: End) -> Iterable[Violation]:
    users: Counter[int] = Counter()
    chats: Counter[str] = Counter()
    for call in end.calls:
        users[call.user_id] += call.total_tokens
        chats[call.chat_id] += call.total_tokens
    written: Counter[str] = Counter()
    for message in end.messages:
        written[message.chat_id] += message.tokens
    for user, usage in end.users.items():
        if usage != users[user]:
            yield Violation("sums", f"user {user} has {usage}, the ledger {users[user]}")
    for chat_id, chat in end.chats.items():
        if not chat.tokens_total == chats[chat_id] == written[chat_id]:
            ledger, history = chats[chat_id], written[chat_id]
            yield Violation("sums", f"{chat_id} has {chat.tokens_total}, the ledger {ledger}, the history {history}")


def _check_charges(end: End) -> Iterable[Violation]:
    answers: defaultdict[str, list[Call]] = defaultdict(list)
    for call in end.calls:
        if call.purpose not in _ASIDE:
            answers[call.run_id].append(call)
    for run in end.runs.values():
        yield from _check_charge(run, answers[run.id])


def _check_charge(run: Run, calls: list[Call]) -> Iterable[Violation]:
    total = sum(call.total_tokens for call in calls)
    if run.total_tokens != total:
        yield Violation("sums", f"{run.id} took {run.total_tokens}, the ledger says {total}")
    # "chat": what attempts cost that died before their first word
    if len([call for call in calls if call.purpose != "chat"]) > 1:
        yield Violation("charged-twice", f"{run.id} has {[call.entry_key for call in calls]}")
    if run.output_text and not total:
        yield Violation("free", f"{run.id} said {len(run.output_text)} characters and cost nothing")
    is_told = run.state == "finished" and not run.is_estimated and _ECHO.match(run.input_text)
    if is_told and sum(call.output_tokens for call in calls) != -(-len(run.output_text) // PIECE):
        yield Violation("charge", f"{run.id} was charged {[call.output_tokens for call in calls]} for its pieces")


def _check_holds(end: End) -> Iterable[Violation]:
    used: Counter[int] = Counter()
    held: Counter[int] = Counter()
    holds = {hold.hold_id: hold for hold in end.holds}
    for hold in end.holds:
        used[hold.user_id] += hold.charged or 0
        held[hold.user_id] += 0 if hold.is_settled else hold.tokens
        if not hold.is_settled and hold.hold_id in end.runs:
            yield Violation("hold-left", f"{hold.hold_id} holds {hold.tokens}: {end.runs[hold.hold_id].state}")
    for run in end.runs.values():
        hold = holds.get(run.id)
        if hold is None or (run.state in TERMINAL and hold.charged != run.total_tokens):
            yield Violation("settled", f"{run.id} took {run.total_tokens}, its hold was charged {hold}")
    for user, (window_used, window_held) in end.windows.items():
        if (window_used, window_held) != (used[user], held[user]):
            yield Violation(
                "window", f"user {user}: {window_used} used, {window_held} held; holds: {used[user]}, {held[user]}"
            )


def _check_changes(end: End) -> Iterable[Violation]:
    for change in end.changes:
        if change.old in TERMINAL and change.new != change.old:
            yield Violation("backwards", f"{change.run_id} went from {change.old} to {change.new}")
        if change.old in TERMINAL and change.is_cut:
            yield Violation("rewritten", f"{change.run_id} was {change.old} and its text changed")
        if change.is_cut:
            yield Violation("cut", f"{change.run_id}: what was kept was given up ({change.old} → {change.new})")
        if change.is_strangers and change.old not in TERMINAL:
            yield Violation("two-writers", f"{change.run_id} is {change.owner}'s and process {change.writer} wrote it")
        if change.new_epoch < change.old_epoch:
            yield Violation("epoch", f"{change.run_id} went back to epoch {change.new_epoch}")
        if change.had_spoken and change.new_epoch > change.old_epoch and change.new not in TERMINAL:
            yield Violation("executed-again", f"{change.run_id} had spoken and was claimed, epoch {change.new_epoch}")
