"""Step 2: claim → publish → settle. Any number of relays may work at once.

Which rows may be taken is claim.py's matter, which become ready again is holds.py's, who works when is relay_loop.py's.
No lock is held while publishing.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from outbox.breaker import SHORTEST_WAIT_SECONDS, Breaker, TopicBreakers
from outbox.claim import ALL_SHARDS, Claim, ClaimedRow, Share, claim_rows
from outbox.commit_order import CommitOrder
from outbox.envelope import EnvelopeUnreadable, encode_wire
from outbox.holds import BATCH, paused_types, release_held_rows, wake_due_rows
from outbox.metrics import observe_published
from outbox.models import Attempt
from outbox.registry import blocking_types
from outbox.settle import Astray, Refused, bury, find_astray, give_back, let_wait, settle_published
from outbox.tally import TALLY
from outbox.tracing import PublishSpans
from outbox.transports import OutgoingMessage, PublishFailure, PublishResult, Transport, TransportUnavailable
from outbox.workers import own_name
from smartflow.kernel.clock import Clock

logger = logging.getLogger(__name__)

PROBE_SECONDS = 1.0
# Larger: a long queue is let go sooner; smaller: less of the time in which it is let go is taken from publishing.
SWEEPING_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much a relay takes at once, for how long it is its own, and how long the broker may take to answer."""

    batch_size: int
    lease_seconds: float
    publish_seconds: float


@dataclass(kw_only=True)
class PassResult:
    """What a relay did; `is_transport_down` when the transport failed."""

    claimed: int = 0
    published: int = 0
    dead: int = 0
    fenced: int = 0
    is_transport_down: bool = False


@dataclass(kw_only=True)
class Memory:
    """What the relays of one process remember from batch to batch."""

    breaker: Breaker = field(default_factory=lambda: Breaker(monotonic=time.monotonic))
    topics: TopicBreakers = field(default_factory=lambda: TopicBreakers(monotonic=time.monotonic))
    order: CommitOrder = field(default_factory=CommitOrder)


@dataclass(frozen=True, kw_only=True)
class Relay:
    """Claims, publishes and settles, a batch at a time."""

    transport: Transport
    clock: Clock
    bounds: Bounds
    memory: Memory = field(default_factory=Memory)
    name: str = field(default_factory=own_name)

    def is_blocked(self) -> bool:
        """Tell whether the broker is away: asks it when it is time to, and logs a change of state once."""
        breaker = self.memory.breaker
        if not breaker.is_open:
            return False
        if breaker.seconds_to_probe() > 0:
            return True
        if not self._is_answered():
            breaker.note_failure()
            return True
        if breaker.note_answer():
            logger.info("Publishing goes on: the broker answers again")
        return False

    def run_batch(self, share: Share = ALL_SHARDS) -> tuple[Claim, PassResult]:
        """
        Claim, publish and settle one batch.

        Transaction: single statements around publishing, none across it.
        Twice:       safe; a relay that dies after publishing leaves rows that are published again.
        """
        claim = claim_rows(
            limit=self.bounds.batch_size,
            lease_seconds=self.bounds.lease_seconds,
            now=self.clock(),
            share=share,
        )
        result = PassResult(claimed=len(claim.rows))
        if rows := self._without_refused_topics(claim):
            self._publish(replace(claim, rows=rows), result)
        return claim, result

    def _without_refused_topics(self, claim: Claim) -> list[ClaimedRow]:
        """Let rows of topics that are not tried now wait, and those behind them; return the others."""
        waits = self.memory.topics.waits()
        if not waits:
            return claim.rows
        rows: list[ClaimedRow] = []
        behind: dict[str, str] = {}
        aside: dict[str, list[int]] = {}
        for row in claim.rows:
            if row.topic in waits:
                behind.setdefault(row.message_key, row.topic)
            if topic := behind.get(row.message_key):
                aside.setdefault(topic, []).append(row.id)
            else:
                rows.append(row)
        for topic, ids in aside.items():
            self._let_wait(claim, ids, seconds=waits[topic], reason=f"the broker does not take {topic}")
        return rows

    def _publish(self, claim: Claim, result: PassResult) -> None:
        started = time.monotonic()
        spans = PublishSpans()
        messages, unreadable = _encode(claim.rows, spans)
        answer = self.transport.publish(messages, timeout_seconds=self.bounds.publish_seconds)
        now, seconds = self.clock(), time.monotonic() - started
        spans.end(answer.failures)
        self._settle(claim, messages, answer, result)
        acknowledged = {message.outbox_id for message in messages} - answer.failures.keys()
        # What goes round again, after a failure or by an operator's hand, would look as late as it is old.
        firsts = (row for row in claim.rows if row.published_at is None and row.retry_count == 0)
        written_at = [row.created_at for row in firsts if row.id in acknowledged]
        observe_published(written_at=written_at, now=now, batch_seconds=seconds)
        permanent = {pk: failure.reason for pk, failure in answer.failures.items() if failure.is_permanent}
        refused = unreadable | permanent
        if refused:
            buried = [
                Refused(outbox_id=row.id, number=row.retry_count + 1, reason=refused[row.id])
                for row in claim.rows
                if row.id in refused
            ]
            result.dead += bury(refused=buried, token=claim.token, now=now, by=self.name, seconds=seconds)
        _give_back_unsent(claim, {message.outbox_id for message in messages} | set(refused), self.clock)
        self._note_taken({message.topic for message in messages if message.outbox_id not in answer.failures})
        if answer.failures.keys() - permanent.keys():
            self._put_off(claim, messages, answer, result)

    def _put_off(
        self, claim: Claim, messages: Sequence[OutgoingMessage], answer: PublishResult, result: PassResult
    ) -> None:
        """
        Let go of what was not acknowledged; no attempt counts.

        While the broker is away it stays ready, for its return. A broker that is there does not take these only: they
        wait, or they would stand in the way of all it takes.
        """
        failures = {pk: failure for pk, failure in answer.failures.items() if not failure.is_permanent}
        is_of_topics = all(failure.is_of_topic for failure in failures.values())
        if len(answer.failures) < len(messages) or is_of_topics or self._is_answered():
            self._put_off_topics(claim, messages, failures)
            return
        reason = next(iter(failures.values())).reason
        if self.memory.breaker.note_failure():
            logger.warning(
                "Publishing pauses: the broker does not answer; events wait in the table", extra={"reason": reason}
            )
        result.is_transport_down = True
        give_back(ids=list(failures), token=claim.token, now=self.clock(), reason=f"not published: {reason}")

    def _put_off_topics(
        self, claim: Claim, messages: Sequence[OutgoingMessage], failures: Mapping[int, PublishFailure]
    ) -> None:
        """Let them wait as long as their topic does: longer and longer, if nothing of it was taken."""
        taken = {message.topic for message in messages if message.outbox_id not in failures}
        unsent: dict[str, list[int]] = {}
        for message in messages:
            if message.outbox_id in failures:
                unsent.setdefault(message.topic, []).append(message.outbox_id)
        for topic in unsent.keys() - taken:
            if self.memory.topics.note_failure(topic):
                fields = {"topic": topic, "reason": failures[unsent[topic][0]].reason}
                logger.warning("The broker does not take a topic; its events wait in the table", extra=fields)
        waits = self.memory.topics.waits()
        for topic, ids in unsent.items():
            seconds = waits.get(topic, SHORTEST_WAIT_SECONDS)
            self._let_wait(claim, ids, seconds=seconds, reason=failures[ids[0]].reason)

    def _let_wait(self, claim: Claim, ids: Sequence[int], *, seconds: float, reason: str) -> None:
        now = self.clock()
        until = now + timedelta(seconds=seconds)
        let_wait(ids=ids, token=claim.token, until=until, now=now, reason=f"not published: {reason}")

    def _is_answered(self) -> bool:
        try:
            self.transport.check(timeout_seconds=PROBE_SECONDS)
        except TransportUnavailable:
            return False
        return True

    def _note_taken(self, topics: set[str]) -> None:
        if topics and self.memory.breaker.note_success():
            logger.info("Publishing goes on: the broker answers again")
        for topic in self.memory.topics.note_success(topics):
            logger.info("The broker takes a topic again", extra={"topic": topic})

    def _settle(
        self, claim: Claim, messages: Sequence[OutgoingMessage], answer: PublishResult, result: PassResult
    ) -> None:
        acknowledged = [message.outbox_id for message in messages if message.outbox_id not in answer.failures]
        now = self.clock()
        settled = settle_published(
            ids=acknowledged, token=claim.token, now=now, by=self.name, positions=answer.positions
        )
        astray = Astray()
        if settled < len(acknowledged):
            astray = find_astray(ids=acknowledged, token=claim.token, by=self.name, settled_at=now)
        published = len(acknowledged) - astray.fenced
        result.published += published
        result.fenced += astray.fenced
        TALLY.add("published", published)
        TALLY.add("fenced", astray.fenced)
        unanswered = {pk for pk, failure in answer.failures.items() if not failure.is_permanent}
        self._watch_order(claim.rows, published=set(acknowledged) - astray.ids, again=unanswered | astray.ids)

    def _watch_order(self, rows: Sequence[ClaimedRow], *, published: set[int], again: set[int]) -> None:
        """Name rows that follow a later one of their key; what is behind a row that comes round again tells nothing."""
        first_again = {row.message_key: row.id for row in reversed(rows) if row.id in again}
        found = self.memory.order.note(
            (row.message_key, row.id)
            for row in rows
            if row.published_at is None
            and row.id in published
            and row.id < first_again.get(row.message_key, row.id + 1)
        )
        for key, pk, last in _without_tried(found) if found else ():
            TALLY.add("violations")
            fields = {"outbox_id": pk, "later_outbox_id": last, "key": key}
            logger.warning("An event was committed after a later one of its key was published", extra=fields)


def run_pass(
    *, transport: Transport, clock: Clock, batch_size: int, lease_seconds: float, publish_seconds: float, seconds: float
) -> PassResult:
    """
    Publish ready rows until none is left, the transport fails or `seconds` have gone by.

    For tests and one-off work; relays in service run relay_loop.py.
    """
    bounds = Bounds(batch_size=batch_size, lease_seconds=lease_seconds, publish_seconds=publish_seconds)
    return run_until_empty(Relay(transport=transport, clock=clock, bounds=bounds), seconds=seconds)


def run_until_empty(relay: Relay, *, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> PassResult:
    """Do what run_pass does with a relay that remembers earlier batches."""
    total = PassResult()
    deadline = monotonic() + seconds
    sweep(relay.clock)
    share = Share(paused=paused_types())
    while monotonic() < deadline:
        total.is_transport_down = relay.is_blocked()
        if total.is_transport_down:
            break
        claim, result = relay.run_batch(share)
        _add(total, result)
        if (not claim.rows and claim.left_off is None) or result.is_transport_down:
            break
    return total


def sweep(clock: Clock) -> bool:
    """
    Make rows ready that waited long enough, or that nothing holds back any more; false when time was over before.

    Transaction: one for each batch, and SWEEPING_SECONDS and a batch at most.
    """
    until = time.monotonic() + SWEEPING_SECONDS
    while max(wake_due_rows(now=clock()), release_held_rows(now=clock())) == BATCH:
        if time.monotonic() >= until:
            return False
    return True


def _add(total: PassResult, part: PassResult) -> None:
    total.claimed += part.claimed
    total.published += part.published
    total.dead += part.dead
    total.fenced += part.fenced
    total.is_transport_down = part.is_transport_down


def _without_tried(found: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Leave out rows that failed before: an operator sent those round again, behind what followed them."""
    tried = Attempt.objects.filter(message_id__in=[pk for _, pk, _ in found]).values_list("message_id", flat=True)
    excused = set(tried)
    return [one for one in found if one[1] not in excused]


def _encode(rows: Sequence[ClaimedRow], spans: PublishSpans) -> tuple[list[OutgoingMessage], dict[int, str]]:
    """Return what to send, and why a row cannot be; what follows such a row in its key is left out."""
    messages: list[OutgoingMessage] = []
    unreadable: dict[int, str] = {}
    blocked: set[str] = set()
    for row in rows:
        if row.message_key in blocked:
            continue
        try:
            value = encode_wire(outbox_id=row.id, event_id=row.event_id, stored=row.payload)
        except EnvelopeUnreadable as error:
            unreadable[row.id] = f"unreadable payload: {error}"
            if row.biz_type in blocking_types():
                blocked.add(row.message_key)
        else:
            headers = spans.start(row)
            messages.append(
                OutgoingMessage(outbox_id=row.id, topic=row.topic, key=row.message_key, value=value, headers=headers)
            )
    return messages, unreadable


def _give_back_unsent(claim: Claim, in_hand: set[int], clock: Clock) -> None:
    """Let go of what was not even tried: the next claim holds it behind the row that is dead by now."""
    untried = [row.id for row in claim.rows if row.id not in in_hand]
    give_back(ids=untried, token=claim.token, now=clock())
