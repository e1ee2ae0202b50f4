"""Every order in which two relays, consumers, the rescan, crashes, time and an operator can step on one row.

The states are explored breadth first: each step of the product's own code is tried in each state that can be reached,
so every interleaving of any length is covered. A state is the row as far as it matters to a decision, what each actor
has in hand, and whether a message is out. A transaction of the product is one step; what lies between two of its
transactions (claim, publish, settle; a handler's rollback and the record of its failure) is where others step in.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from django.db import transaction

from outbox import dispatch, relay
from outbox.dead_letters import discard_dead_letters, requeue_dead_letters
from outbox.dispatch import Outcome
from outbox.models import OutboxMessage, Status
from tests.outbox_rows import NOW, append, change, claim, row_of, wire

pytestmark = pytest.mark.django_db
MAX_RETRY = 2
AGO, AHEAD = NOW - timedelta(seconds=100), NOW + timedelta(seconds=100)
FINAL = {Status.CONSUMED, Status.DEAD}


@dataclass(frozen=True)
class Row:
    """The row as the product sees it: moments count only as past, future or absent."""

    status: str = Status.PENDING
    retry_count: int = 0
    holder: str | None = None
    is_lease_over: bool = False
    is_waiting: bool = False
    was_published: bool = False
    was_consumed: bool = False
    was_discarded: bool = False


@dataclass(frozen=True)
class State:
    row: Row = Row()
    relay_a: str = "idle"
    relay_b: str = "idle"
    consumer: str = "idle"
    has_message: bool = False
    effects: int = 0
    is_head_unfinished: bool = False


class Explorer:
    """Puts a state into the database, takes a step, and reads the state that results."""

    def __init__(self) -> None:
        self.head, self.pk = append("k"), append("k")
        self.message = dispatch._read(wire(self.pk))
        change(self.pk, max_retry=MAX_RETRY)
        self.is_head_unfinished: bool | None = None
        self.results: dict[tuple, tuple[Row, object]] = {}
        self.outcomes: set[object] = set()

    def write(self, state: State) -> None:
        row = state.row
        lease = AGO if row.is_lease_over else AHEAD
        change(
            self.pk,
            status=row.status,
            retry_count=row.retry_count,
            claim_token=row.holder,
            lease_until=lease if row.holder else None,
            next_retry_at=AHEAD if row.is_waiting else None,
            published_at=AGO if row.was_published else None,
            consumed_at=AGO if row.was_consumed else None,
            discarded_at=AGO if row.was_discarded else None,
            discard_reason="",
        )
        if state.is_head_unfinished != self.is_head_unfinished:
            status = Status.PENDING if state.is_head_unfinished else Status.DEAD
            change(self.head, status=status, next_retry_at=AHEAD)
            self.is_head_unfinished = state.is_head_unfinished

    def read(self, holder: str | None) -> Row:
        row = row_of(self.pk)
        return Row(
            status=row.status,
            retry_count=row.retry_count,
            holder=holder if row.claim_token and row.claim_token not in {"a", "b"} else row.claim_token,
            is_lease_over=row.lease_until is not None and row.lease_until <= NOW,
            is_waiting=row.next_retry_at is not None and row.next_retry_at > NOW,
            was_published=row.published_at is not None,
            was_consumed=row.consumed_at is not None,
            was_discarded=row.discarded_at is not None,
        )

    def run(self, state: State, action: Callable[[], object], *, holder: str | None = None) -> tuple[Row, object]:
        """Run a step of the product; its result depends on the rows alone, so the same rows are not tried twice."""
        known = (state.row, state.is_head_unfinished, action.__qualname__, holder)
        if known not in self.results:
            self.write(state)
            result = action()
            self.results[known] = self.read(holder), result
        return self.results[known]

    def after(self, state: State, action: Callable[[], object], *, holder: str | None = None, **changes) -> State:
        return replace(state, row=self.run(state, action, holder=holder)[0], **changes)

    # --- the steps: each returns the next state, or None where it cannot be taken

    def steps(self, state: State) -> dict[str, Callable[[], State | None]]:
        taken: dict[str, Callable[[], State | None]] = {
            "rescan": lambda: self.after(state, self._rescan),
            "requeue": lambda: self.after(state, self._requeue),
            "discard": lambda: self.after(state, self._discard),
            "time passes": lambda: self._pass_time(state),
            "head": lambda: replace(state, is_head_unfinished=not state.is_head_unfinished),
        }
        for name in ("a", "b"):
            taken |= self._relay_steps(state, name, getattr(state, f"relay_{name}"))
        return taken | self._consumer_steps(state)

    def _relay_steps(self, state, name, doing):
        def to(what: str) -> dict[str, str]:
            return {f"relay_{name}": what}

        def settle():
            relay.settle_published(ids=[self.pk], token=name, now=NOW)

        def release():
            relay._release({self.pk: "away"}, name, NOW)

        def bury():
            relay._settle_dead({self.pk: "refused"}, name, NOW)

        return {
            "idle": {f"{name} claims": lambda: self._claim(state, name)},
            "claimed": {
                f"{name} publishes": lambda: replace(state, has_message=True, **to("acknowledged")),
                f"{name} gets no answer": lambda: replace(state, has_message=True, **to("unanswered")),
                f"{name} is refused": lambda: replace(state, **to("refused")),
                f"{name} is killed": lambda: replace(state, **to("idle")),
            },
            "acknowledged": {
                f"{name} settles": lambda: self.after(state, settle, holder=name, **to("idle")),
                f"{name} is killed": lambda: replace(state, **to("idle")),
            },
            "unanswered": {f"{name} releases": lambda: self.after(state, release, holder=name, **to("idle"))},
            "refused": {f"{name} buries": lambda: self.after(state, bury, holder=name, **to("idle"))},
        }[doing]

    def _consumer_steps(self, state):
        steps = {}
        if state.has_message:
            steps["consumer handles"] = lambda: self._handle(state)
            if state.consumer == "idle":
                steps["consumer fails"] = lambda: replace(state, consumer="failing")
        if state.consumer == "failing":
            steps["consumer records"] = lambda: self.after(state, self._record, consumer="idle")
            steps["consumer is killed"] = lambda: replace(state, consumer="idle")
        return steps

    def _claim(self, state, name):
        def take():
            return [row.id for row in claim().rows]

        row, taken = self.run(state, take, holder=name)
        assert taken in ([], [self.pk])
        return replace(state, row=row, **({f"relay_{name}": "claimed"} if taken else {}))

    def _handle(self, state):
        row, outcome = self.run(state, self._dispatch)
        self.outcomes.add(outcome)
        return replace(state, row=row, effects=state.effects + (outcome == Outcome.CONSUMED))

    def _dispatch(self):
        with transaction.atomic():
            return dispatch._handle_together([self.message], NOW)[0]

    def _rescan(self):
        relay.rescan_published(older_than=NOW, now=NOW)

    def _record(self):
        dispatch._record_failure(self.pk, RuntimeError("not yet"), NOW)

    def _requeue(self):
        requeue_dead_letters(ids=[self.pk], by="alice", reason="again", now=NOW)

    def _discard(self):
        discard_dead_letters(ids=[self.pk], by="alice", reason="no", now=NOW)

    def _pass_time(self, state):
        row = replace(state.row, is_lease_over=state.row.holder is not None, is_waiting=False)
        return replace(state, row=row)

    def explore(self) -> set[State]:
        """Visit every state there is, checking each step on the way."""
        seen, waiting = {State()}, [State()]
        while waiting:
            before = waiting.pop(0)
            for name, step in self.steps(before).items():
                after = step()
                check(before, name, after)
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return seen

    def recover(self, row: Row) -> str:
        """Kill every actor, let time pass, and return the row's status once relay and consumer have run again."""
        self.write(self._pass_time(State(row=row)))
        relay.rescan_published(older_than=NOW, now=NOW)
        taken = claim()
        relay.settle_published(ids=[row.id for row in taken.rows], token=taken.token, now=NOW)
        dispatch._handle_together([self.message], NOW)
        return row_of(self.pk).status


def check(before: State, step: str, after: State) -> None:
    told = f"{step}: {before} → {after}"
    old, new = before.row, after.row
    if old.status == Status.CONSUMED:
        assert new == old, told
    if old.status == Status.DEAD and step not in {"requeue", "discard"}:
        assert new == old, told
    if step == "discard":
        assert replace(new, was_discarded=old.was_discarded) == old, told
    assert after.effects == (new.status == Status.CONSUMED), told
    if step.endswith(("settles", "releases", "buries")) and old.holder != step[0]:
        assert new == old, told
    if new.retry_count != old.retry_count:
        assert (step, new.retry_count) in {("requeue", 0), ("consumer records", old.retry_count + 1)}, told
    assert new.retry_count <= MAX_RETRY, told
    if step == "consumer handles" and before.is_head_unfinished:
        assert new.status == old.status or new.status == Status.PENDING, told
    if step.endswith("claims") and before.is_head_unfinished:
        assert new.holder == old.holder, told


@pytest.fixture
def explorer(handler):
    logging.disable(logging.CRITICAL)
    yield Explorer()
    logging.disable(logging.NOTSET)


def test_every_interleaving_keeps_final_rows_and_handles_once(explorer):
    states = explorer.explore()

    assert {state.row.status for state in states} == set(Status)
    assert any(state.relay_a == state.relay_b == "acknowledged" for state in states)
    assert any(state.row.holder == "b" and state.relay_a == "acknowledged" for state in states)
    assert explorer.outcomes == {Outcome.CONSUMED, Outcome.DUPLICATE, Outcome.DEFERRED}
    stuck = [row for row in {state.row for state in states} if explorer.recover(row) not in FINAL]
    assert stuck == []
    assert OutboxMessage.objects.count() == 2
