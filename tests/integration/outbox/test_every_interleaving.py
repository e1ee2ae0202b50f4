"""Every order in which two relays, consumers, the sweeps, crashes, time and operators can step on one row.

The states are explored breadth first: each step of the product's own code is tried in each state that can be reached,
so every interleaving of any length is covered. A state is the row as far as it matters to a decision, the earlier row
of its key, what holds the key back, what each actor has in hand, and whether a message is out. A transaction of the
product is one step; what lies between two of its transactions (claim, publish, settle; a handler's rollback and the
record of its failure) is where others step in.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from django.db import transaction

from outbox import dispatch, holds
from outbox.claim import Share, claim_rows
from outbox.dead_letters import discard_dead_letters, requeue_dead_letters
from outbox.dispatch import Outcome
from outbox.models import KeyHold, OutboxMessage, PausedType, Status
from outbox.rescan import send_round_again
from outbox.settle import Refused, bury, find_astray, give_back, let_wait, settle_published
from outbox.shards import shard_of
from outbox.transports import PublishedRow
from tests.outbox_rows import EVENT_TYPE, NOW, append, change, row_of, wire

pytestmark = pytest.mark.django_db
MAX_RETRY = 2
OFFSETS = {"a": 1, "b": 2}
AGO, AHEAD = NOW - timedelta(seconds=100), NOW + timedelta(seconds=100)
FINAL = {Status.CONSUMED, Status.DEAD}
KEY = "k"
# What becomes of the earlier row, by those who handle it and by operators; `over` is consumed or given up.
HEAD_STEPS = {
    "published": ("waiting", "dead", "over"),
    "waiting": ("published",),
    "dead": ("waiting", "over"),
    "over": (),
}


@dataclass(frozen=True)
class Row:
    """The row as the product sees it: moments count only as past, future or absent."""

    status: str = Status.PENDING
    is_ready: bool = True
    retry_count: int = 0
    holder: str | None = None
    is_lease_over: bool = False
    retry_is: str = ""
    was_published: bool = False
    was_consumed: bool = False
    was_discarded: bool = False
    place: str = ""  # whose message the row is known by

    @property
    def is_held(self) -> bool:
        return self.status == Status.PENDING and not self.is_ready and not self.retry_is


@dataclass(frozen=True)
class State:
    row: Row = Row()
    head: str = "published"
    hold: str = ""  # what the key waits behind: the head, or the row itself when its type was paused
    is_paused: bool = False
    relay_a: str = "idle"
    relay_b: str = "idle"
    consumer: str = "idle"
    has_message: bool = False
    effects: int = 0


class Explorer:
    """Puts a state into the database, takes a step, and reads the state that results."""

    def __init__(self) -> None:
        self.head, self.pk = append(KEY), append(KEY)
        self.message = dispatch._read(wire(self.pk))
        change(self.pk, max_retry=MAX_RETRY)
        self.surroundings: tuple | None = None
        self.results: dict[tuple, tuple[Row, str, object]] = {}
        self.outcomes: set[object] = set()

    def write(self, state: State) -> None:
        row = state.row
        lease = AGO if row.is_lease_over else AHEAD
        change(
            self.pk,
            status=row.status,
            ready_shard=shard_of(KEY) if row.is_ready else None,
            retry_count=row.retry_count,
            claim_token=row.holder,
            lease_until=lease if row.holder else None,
            next_retry_at={"": None, "due": AGO, "ahead": AHEAD}[row.retry_is],
            published_at=AGO if row.was_published else None,
            consumed_at=AGO if row.was_consumed else None,
            discarded_at=AGO if row.was_discarded else None,
            discard_reason="",
            published_by=row.place,
            published_offset=OFFSETS.get(row.place),
        )
        surroundings = state.head, state.hold, state.is_paused
        if surroundings != self.surroundings:
            self._write_surroundings(*surroundings)
            self.surroundings = surroundings

    def _write_surroundings(self, head: str, hold: str, is_paused: bool) -> None:
        status = {"waiting": Status.PENDING, "over": Status.CONSUMED}.get(head, head)
        moment = AHEAD if head == "waiting" else None
        change(self.head, status=status, next_retry_at=moment, published_at=AHEAD, consumed_at=AGO)
        KeyHold.objects.all().delete()
        if hold:
            KeyHold.objects.create(message_key=KEY, head_id=self.head if hold == "head" else self.pk, since=AGO)
        PausedType.objects.all().delete()
        if is_paused:
            PausedType.objects.create(event_type=EVENT_TYPE, reason="why", by="alice", paused_at=AGO)

    def read(self, holder: str | None) -> Row:
        row = row_of(self.pk)
        retry_is = "due" if row.next_retry_at and row.next_retry_at <= NOW else "ahead"
        return Row(
            status=row.status,
            is_ready=row.ready_shard is not None,
            retry_count=row.retry_count,
            holder=holder if row.claim_token and row.claim_token not in {"a", "b"} else row.claim_token,
            is_lease_over=row.lease_until is not None and row.lease_until <= NOW,
            retry_is=retry_is if row.next_retry_at and row.discarded_at is None else "",
            was_published=row.published_at is not None,
            was_consumed=row.consumed_at is not None,
            was_discarded=row.discarded_at is not None,
            place=row.published_by if row.published_offset == OFFSETS.get(row.published_by) else "broken",
        )

    def read_hold(self) -> str:
        hold = KeyHold.objects.first()
        return {self.head: "head", self.pk: "row"}[hold.head_id] if hold else ""

    def run(self, state: State, action: Callable[[], object], *, holder: str | None = None) -> tuple[State, object]:
        """Run a step of the product; its result depends on the rows alone, so the same rows are not tried twice."""
        looks_around = action in (self._take, self._dispatch, self._let_go)
        around = (state.head, state.hold, state.is_paused) if looks_around else ()
        known = (state.row, around, action.__qualname__, holder)
        if known not in self.results:
            self.write(state)
            result = action()
            hold = self.read_hold()
            assert looks_around or hold == state.hold
            self.results[known] = self.read(holder), hold, result
            self.surroundings = (state.head, hold, state.is_paused)
        row, hold, result = self.results[known]
        return replace(state, row=row, hold=hold if looks_around else state.hold), result

    def after(self, state: State, action: Callable[[], object], *, holder: str | None = None, **changes) -> State:
        return replace(self.run(state, action, holder=holder)[0], **changes)

    # --- the steps: each returns the next state

    def steps(self, state: State) -> dict[str, Callable[[], State]]:
        taken: dict[str, Callable[[], State]] = {
            "rescan": lambda: self.after(state, self._rescan),
            "wake": lambda: self.after(state, self._wake),
            "release": lambda: self.after(state, self._let_go),
            "requeue": lambda: self.after(state, self._requeue),
            "discard": lambda: self.after(state, self._discard),
            "time passes": lambda: self._pass_time(state),
            "pause or resume": lambda: replace(state, is_paused=not state.is_paused),
        }
        for head in HEAD_STEPS[state.head]:
            taken[f"head is {head}"] = lambda head=head: replace(state, head=head)
        for name in ("a", "b"):
            own = self._relay_steps(state, name, getattr(state, f"relay_{name}"))
            # the second relay has only good days: it is there to meet the first
            taken |= {step: to for step, to in own.items() if step not in {"b gets no answer", "b is refused"}}
        return taken | self._consumer_steps(state)

    def _relay_steps(self, state, name, doing):
        def to(what: str) -> dict[str, str]:
            return {f"relay_{name}": what}

        def settle():
            places = {self.pk: (0, OFFSETS[name])}
            written = settle_published(ids=[self.pk], token=name, now=NOW, by=name, positions=places)
            return written, 0 if written else find_astray(ids=[self.pk], token=name, by=name, settled_at=NOW).fenced

        def let_go():
            give_back(ids=[self.pk], token=name, now=NOW, reason="away")

        def put_off():
            let_wait(ids=[self.pk], token=name, until=AHEAD, now=NOW, reason="the topic")

        def park():
            refused = Refused(outbox_id=self.pk, number=1, reason="no")
            bury(refused=[refused], token=name, now=NOW, by=name, seconds=0.1)

        return {
            "idle": {f"{name} claims": lambda: self._claim(state, name)},
            "claimed": {
                f"{name} publishes": lambda: replace(state, has_message=True, **to("acknowledged")),
                f"{name} gets no answer": lambda: replace(state, has_message=True, **to("unanswered")),
                f"{name} is refused": lambda: replace(state, **to("refused")),
                f"{name} is killed": lambda: replace(state, **to("idle")),
            },
            "acknowledged": {
                f"{name} settles": lambda: self._settle(state, name, settle),
                f"{name} is killed": lambda: replace(state, **to("idle")),
            },
            "unanswered": {
                f"{name} releases": lambda: self.after(state, let_go, holder=name, **to("idle")),
                f"{name} puts off": lambda: self.after(state, put_off, holder=name, **to("idle")),
            },
            "refused": {f"{name} buries": lambda: self.after(state, park, holder=name, **to("idle"))},
        }[doing]

    def _settle(self, state, name, settle):
        after, (written, fenced) = self.run(state, settle, holder=name)
        old, new = state.row, after.row
        is_beaten = old.status == Status.CONSUMED and not old.place
        assert written == (old.holder == name or is_beaten), (name, state)
        assert new.place == (name if written else old.place), (name, state)
        assert fenced == (not written and (old.is_ready or old.status == Status.PUBLISHED)), (name, state)
        return replace(after, **{f"relay_{name}": "idle"})

    def _consumer_steps(self, state):
        steps = {}
        if state.has_message:
            steps["consumer handles"] = lambda: self._handle(state)
            if state.consumer == "idle" and state.head == "over":  # no handler runs before
                steps["consumer fails"] = lambda: replace(state, consumer="failing")
        if state.consumer == "failing":
            steps["consumer records"] = lambda: self.after(state, self._record, consumer="idle")
            steps["consumer is killed"] = lambda: replace(state, consumer="idle")
        return steps

    def _claim(self, state, name):
        after, taken = self.run(state, self._take, holder=name)
        assert taken in ([], [self.pk])
        return replace(after, **({f"relay_{name}": "claimed"} if taken else {}))

    def _take(self):
        share = Share(paused=holds.paused_types())
        return [row.id for row in claim_rows(limit=50, lease_seconds=10, now=NOW, share=share).rows]

    def _handle(self, state):
        after, outcome = self.run(state, self._dispatch)
        self.outcomes.add(outcome)
        return replace(after, effects=state.effects + (outcome == Outcome.CONSUMED))

    def _dispatch(self):
        with transaction.atomic():
            return dispatch._handle_together([self.message], NOW)[0]

    def _rescan(self):
        lost = PublishedRow(outbox_id=self.pk, topic="t", partition=None, offset=None)
        send_round_again([lost], published_before=NOW, now=NOW)

    def _wake(self):
        holds.wake_due_rows(now=NOW)

    def _let_go(self):
        holds.release_held_rows(now=NOW)

    def _record(self):
        dispatch._record_failure(self.pk, RuntimeError("not yet"), 0.1, NOW)

    def _requeue(self):
        requeue_dead_letters(ids=[self.pk], by="alice", reason="again", now=NOW)

    def _discard(self):
        discard_dead_letters(ids=[self.pk], by="alice", reason="no", now=NOW)

    def _pass_time(self, state):
        retry_is = "due" if state.row.retry_is else ""
        return replace(state, row=replace(state.row, is_lease_over=state.row.holder is not None, retry_is=retry_is))

    def explore(self) -> set[State]:
        """Visit every state there is, checking each step on the way."""
        seen, waiting = {State()}, [State()]
        while waiting:
            before = waiting.pop()
            for name, step in self.steps(before).items():
                after = step()
                check(before, name, after)
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return seen

    def recover(self, row: Row, hold: str) -> str:
        """Kill every actor, let time pass, finish the head, and return the row's status once everything has run."""
        self.write(self._pass_time(State(row=row, hold=hold, head="over")))
        self.surroundings = None
        self._rescan()
        self._wake()
        self._let_go()
        taken = claim_rows(limit=50, lease_seconds=10, now=NOW)
        settle_published(ids=[row.id for row in taken.rows], token=taken.token, now=NOW)
        self._dispatch()
        return row_of(self.pk).status


def check(before: State, step: str, after: State) -> None:
    def told() -> str:
        return f"{step}: {before} → {after}"

    old, new = before.row, after.row
    if old.status == Status.CONSUMED:
        assert replace(new, place=old.place) == old, told()
    if old.status == Status.DEAD and step not in {"requeue", "discard"}:
        assert new == old, told()
    if step == "discard":
        assert replace(new, was_discarded=old.was_discarded) == old, told()
    assert after.effects == (new.status == Status.CONSUMED), told()
    assert after.hold or not new.is_held, told()
    if step.endswith(("settles", "releases", "puts off", "buries")) and old.holder != step[0]:
        assert replace(new, place=old.place) == old, told()
    if new.retry_count != old.retry_count:
        assert (step, new.retry_count) in {("requeue", 0), ("consumer records", old.retry_count + 1)}, told()
    assert new.retry_count <= MAX_RETRY, told()
    check_order(before, step, after, told)


def check_order(before: State, step: str, after: State, told: Callable[[], str]) -> None:
    """The head goes first: nothing is handled before it is over, nor published while it waits or is dead."""
    if after.effects > before.effects:
        assert before.head == "over", told()
    if step.endswith("claims") and after.row.holder not in {before.row.holder, None}:
        assert before.head in {"published", "over"}, told()
        assert not before.is_paused, told()
    if before.row.is_held and (before.head == "dead" and before.hold == "head"):
        assert after.row.is_held or after.head != "dead", told()


@pytest.fixture
def explorer(handler):
    logging.disable(logging.CRITICAL)
    yield Explorer()
    logging.disable(logging.NOTSET)


def test_every_interleaving_keeps_final_rows_and_handles_once(explorer):
    states = explorer.explore()

    assert {state.row.status for state in states} == set(Status)
    assert {state.hold for state in states if state.row.is_held} == {"head", "row"}
    assert any(state.relay_a == state.relay_b == "acknowledged" for state in states)
    assert any(state.row.holder == "b" and state.relay_a == "acknowledged" for state in states)
    assert explorer.outcomes == {Outcome.CONSUMED, Outcome.DUPLICATE, Outcome.DEFERRED, Outcome.BLOCKED}
    rows = {(state.row, state.hold) for state in states}
    assert [row for row, hold in rows if explorer.recover(row, hold) not in FINAL] == []
    assert OutboxMessage.objects.count() == 2
