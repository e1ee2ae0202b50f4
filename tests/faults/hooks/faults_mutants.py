"""The product, broken on purpose in one place, to see whether the suite notices. FAULTS_MUTANT names the break."""

from collections import defaultdict
from collections.abc import Callable
from types import ModuleType
from typing import Any

Change = Callable[[ModuleType], None]
MUTANTS: dict[str, dict[str, Change]] = {}


def chosen(name: str) -> dict[str, list[Change]]:
    """The changes of one mutant; none without a name. A name nobody knows stops the process."""
    found: defaultdict[str, list[Change]] = defaultdict(list)
    for module, change in (MUTANTS[name] if name else {}).items():
        found[module].append(change)
    return found


def mutant(name: str, module: str) -> Callable[[Change], Change]:
    """Register the function below as part of a mutant."""

    def register(change: Change) -> Change:
        MUTANTS.setdefault(name, {})[module] = change
        return change

    return register


@mutant("settle-without-fence", "outbox.relay")
def _no_fence(module: ModuleType) -> None:
    rows = module.OutboxMessage.objects
    assert callable(module._held)
    module._held = lambda ids, token: rows.filter(id__in=ids)


@mutant("settle-before-acknowledgement", "outbox.transports.kafka")
def _no_wait(module: ModuleType) -> None:
    from outbox.transports.base import PublishResult

    def publish(self: Any, messages: Any, *, timeout_seconds: float) -> Any:
        producer = self._get_producer()
        self._ensure_topics({message.topic for message in messages})
        for message in messages:
            producer.produce(message.topic, value=message.value, key=message.key.encode())
        producer.poll(0)
        return PublishResult()

    module.KafkaTransport.publish = publish


@mutant("offsets-before-commit", "outbox.transports.kafka")
def _offsets_first(module: ModuleType) -> None:
    original = module.KafkaConsumer.poll

    def poll(self: Any, *, max_messages: int, timeout_seconds: float) -> Any:
        deliveries = original(self, max_messages=max_messages, timeout_seconds=timeout_seconds)
        if deliveries:
            self.acknowledge(deliveries)
            try:
                self._consumer.commit(asynchronous=False)
            except Exception:
                return []
        return deliveries

    module.KafkaConsumer.poll = poll
