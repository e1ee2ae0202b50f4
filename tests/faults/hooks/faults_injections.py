"""What the driver can do to a process from outside: it writes a file below FAULTS_FOLDER, the process obeys.

    points/<process>.<point>   "kill 3" or "stop 3": at the third time the process comes by, it does that to itself
    skew/<process>             seconds its wall clock is wrong by
    queue/<process>            how many messages its producer holds before it is full
    errors/<event id>          "permanent", "transient 2" (two more failures) or "slow 1.5" (once)

Also shortens what only makes a run long: see QUICK.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

Change = Callable[[ModuleType], None]
CHANGES: dict[str, list[Change]] = {}
FOLDER = Path(os.environ.get("FAULTS_FOLDER", "."))
_real_time = time.time

# Production constants, divided so that a run takes seconds; their proportions stay.
QUICK = {
    # the least a broker with its own defaults allows is 6000
    "session.timeout.ms": int(os.environ.get("FAULTS_SESSION_MS", "6000")),
    "heartbeat.interval.ms": 300,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 2000,
}
RETRY_DIVISOR = 5
QUICK_STALL_SECONDS = 4.0


def changes(module_name: str) -> Callable[[Change], Change]:
    """Register the function below for a module."""

    def register(change: Change) -> Change:
        CHANGES.setdefault(module_name, []).append(change)
        return change

    return register


def process_name() -> str:
    """The name the driver gave to this process."""
    return os.environ.get("FAULTS_PROCESS", "nobody")


# --- points -----------------------------------------------------------------------------------------------------------
def pass_point(point: str) -> None:
    """Obey an order that waits at this point."""
    order = FOLDER / "points" / f"{process_name()}.{point}"
    try:
        verb, times = order.read_text().split()
    except (FileNotFoundError, ValueError):
        return
    if int(times) > 1:
        order.write_text(f"{verb} {int(times) - 1}")
        return
    order.unlink(missing_ok=True)
    (FOLDER / "obeyed").open("a").write(f"{process_name()} {verb} {point}\n")
    os.kill(os.getpid(), signal.SIGKILL if verb == "kill" else signal.SIGSTOP)


def _surround(owner: Any, name: str, *, before: str = "", after: str = "") -> None:
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            pass_point(before)
        result = original(*args, **kwargs)
        if after:
            pass_point(after)
        return result

    setattr(owner, name, wrapped)


@changes("outbox.transports.kafka")
def _points_of_transport(module: ModuleType) -> None:
    _surround(module.KafkaTransport, "publish", before="before-publish", after="after-publish")
    _surround(module.KafkaConsumer, "acknowledge", before="before-acknowledge", after="after-acknowledge")


# --- handlers ---------------------------------------------------------------------------------------------------------
@changes("chat.operations")
def _failing_handler(module: ModuleType) -> None:
    original = module.record_messages

    @wraps(original)
    def record_messages(*, events: Any) -> Any:
        marked = [event_id for event_id, event in events.items() if event.message.startswith("[[fault]]")]
        _fail_if_asked(marked, is_alone=len(events) == 1)
        result = original(events=events)
        pass_point("in-transaction")
        return result

    module.record_messages = record_messages


def _fail_if_asked(event_ids: Iterable[str], *, is_alone: bool) -> None:
    from smartflow.kernel.errors import Invalid

    for event_id in event_ids:
        order = FOLDER / "errors" / event_id
        try:
            verb, _, amount = order.read_text().partition(" ")
        except FileNotFoundError:
            continue
        if verb == "permanent":
            raise Invalid("injected: no retry can help")
        if verb == "slow":
            order.unlink(missing_ok=True)
            time.sleep(float(amount))
        elif verb == "transient":
            # A batch that fails is tried in halves; only alone does the event itself fail, and use up a failure.
            if is_alone and int(amount) > 1:
                order.write_text(f"transient {int(amount) - 1}")
            elif is_alone:
                order.unlink(missing_ok=True)
            raise RuntimeError("injected: the next try may succeed")


# --- clocks -----------------------------------------------------------------------------------------------------------
class _Skew:
    """This process's error, read from its file at most ten times a second."""

    seconds = 0.0
    _read_at = -1.0

    def now(self) -> float:
        if time.monotonic() - self._read_at > 0.1:
            self._read_at = time.monotonic()
            try:
                self.seconds = float((FOLDER / "skew" / process_name()).read_text())
            except (FileNotFoundError, ValueError):
                self.seconds = 0.0
        return self.seconds


_skew = _Skew()


@changes("smartflow.kernel.clock")
def _wrong_clock(module: ModuleType) -> None:
    original = module.utc_now
    module.utc_now = lambda: original() + timedelta(seconds=_skew.now())
    time.time = lambda: _real_time() + _skew.now()


@changes("celery.app.base")
def _wrong_clock_of_senders(module: ModuleType) -> None:
    original = module.Celery.now
    module.Celery.now = lambda app: original(app) + timedelta(seconds=_skew.now())


@changes("celery.worker.request")
def _wrong_clock_of_receivers(module: ModuleType) -> None:
    real = module.datetime

    class SkewedDatetime(real):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + timedelta(seconds=_skew.now())

    module.datetime = SkewedDatetime


# --- the producer's queue ---------------------------------------------------------------------------------------------
@changes("outbox.transports.kafka")
def _small_queue(module: ModuleType) -> None:
    class SmallQueueProducer(module.Producer):
        """Full at the driver's number, as librdkafka is at queue.buffering.max.messages."""

        def produce(self, *args: Any, **kwargs: Any) -> None:
            try:
                limit = int((FOLDER / "queue" / process_name()).read_text())
            except (FileNotFoundError, ValueError):
                limit = 0
            if limit and len(self) >= limit:
                raise BufferError("Local: Queue full")
            super().produce(*args, **kwargs)

    module.Producer = SmallQueueProducer


# --- what only makes a run long ---------------------------------------------------------------------------------------
@changes("outbox.transports.kafka_settings")
def _quick_groups(module: ModuleType) -> None:
    for name in () if "FAULTS_REAL_TIMES" in os.environ else ("common_settings", "consumer_settings"):
        _quicken(module, name)


@changes("outbox.transports.kafka")
def _quick_watch(module: ModuleType) -> None:
    if "FAULTS_REAL_TIMES" not in os.environ:
        module.KafkaConsumer.__init__.__kwdefaults__["stall_seconds"] = QUICK_STALL_SECONDS


def _quicken(module: ModuleType, name: str) -> None:
    original = getattr(module, name)

    def quick_settings() -> dict[str, Any]:
        settings = original()
        return settings | {key: value for key, value in QUICK.items() if key in settings}

    setattr(module, name, quick_settings)


@changes("outbox.retry")
def _quick_retries(module: ModuleType) -> None:
    if "FAULTS_REAL_TIMES" in os.environ:
        return
    original = module.RetryPolicy.seconds
    module.RetryPolicy.seconds = lambda policy, *, attempt: original(policy, attempt=attempt) / RETRY_DIVISOR


@changes("outbox.workers")
def _quick_heartbeats(module: ModuleType) -> None:
    if "FAULTS_REAL_TIMES" in os.environ:
        return
    module.HEARTBEAT_SECONDS, module.GONE_SECONDS = 0.6, 3.0
