"""The product, broken on purpose in one place, to see whether the suite notices. FAULTS_MUTANT names the break."""

from types import ModuleType
from typing import Any

from faults_breaking import Mutants, registrar
from faults_breaking import replace as _replace

MUTANTS: Mutants = {}
mutant = registrar(MUTANTS)


@mutant("settle-without-fence", "outbox.settle")
def _no_fence(module: ModuleType) -> None:
    without = {
        "claim_token = %s": "COALESCE(%s, '') IS NOT NULL",
        "CASE WHEN consumed_at IS NULL THEN 'published' ELSE status END": "'published'",
    }
    for fence, nothing in without.items():
        assert fence in module._SET
        module._SET = module._SET.replace(fence, nothing)


@mutant("settle-before-acknowledgement", "outbox.transports.kafka")
def _no_wait(module: ModuleType) -> None:
    def publish(self: Any, messages: Any, *, timeout_seconds: float) -> Any:
        self._ensure_topics({message.topic for message in messages})
        producer = self._get_producer()
        for message in messages:
            producer.produce(message.topic, value=message.value, key=message.key.encode())
        producer.poll(0)
        return module.PublishResult()

    _replace(module.KafkaTransport, "publish", publish)


@mutant("offsets-before-commit", "outbox.transports.kafka")
def _offsets_first(module: ModuleType) -> None:
    original = module.KafkaConsumer.poll

    def poll(self: Any, *, max_messages: int, timeout_seconds: float) -> Any:
        deliveries = original(self, max_messages=max_messages, timeout_seconds=timeout_seconds)
        if deliveries:
            self.acknowledge(deliveries)
            try:
                self._consumer.commit(asynchronous=False)
            except module.KafkaException:
                return []
        return deliveries

    _replace(module.KafkaConsumer, "poll", poll)


@mutant("claim-without-barrier", "outbox.claim")
def _no_barriers(module: ModuleType) -> None:
    _replace(module, "_barriers", lambda candidates: {})


@mutant("order-unguarded", "outbox.claim")
def _no_order_in_the_claim(module: ModuleType) -> None:
    _no_barriers(module)


@mutant("order-unguarded", "outbox.dispatch")
def _no_order_in_dispatch(module: ModuleType) -> None:
    _replace(module, "_behind_unfinished", lambda due: {})


@mutant("hold-without-key-hold", "outbox.claim")
def _unnamed_holds(module: ModuleType) -> None:
    def hold_back(*, ids: Any, heads: Any, now: Any) -> None:
        module._leave_ready(ids, next_retry_at=None, now=now)

    _replace(module, "hold_back", hold_back)


@mutant("failed-publish-is-settled", "outbox.transports.kafka")
def _optimism(module: ModuleType) -> None:
    original = module.KafkaTransport.publish

    def publish(self: Any, messages: Any, *, timeout_seconds: float) -> Any:
        return module.PublishResult(positions=original(self, messages, timeout_seconds=timeout_seconds).positions)

    _replace(module.KafkaTransport, "publish", publish)


@mutant("failing-event-is-skipped", "outbox.dispatch")
def _skipping(module: ModuleType) -> None:
    original = module._run_handlers

    def run_handlers(envelopes: Any) -> None:
        for envelope in envelopes:
            try:
                original([envelope])
            except RuntimeError:
                continue

    _replace(module, "_run_handlers", run_handlers)


@mutant("every-failure-is-permanent", "outbox.dispatch")
def _impatience(module: ModuleType) -> None:
    _replace(module, "_kind_of", lambda error: module.Failure.PERMANENT)
