"""Carries out a plan's faults: one thread each, which does the harm at its moment and undoes it at its end."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, Producer, TopicPartition

from tests.faults.checker import Violation
from tests.faults.crew import Crew
from tests.faults.plan import Fault
from tests.faults.servers import Book, OwnServers, Servers
from tests.stack.waiting import wait_until

GUEST_NAME = "guest"
# How long a process may take to come by the point where an order waits for it.
POINT_SECONDS = 1.0
# Longer than a worker that is frozen or asked to end at the same moment needs.
BEAT_SECONDS = 20.0


class Injector:
    """The faults of one run."""

    def __init__(self, crew: Crew, servers: Servers, book: Book, folder: Path) -> None:
        self._crew = crew
        self._servers = servers
        self._book = book
        self._folder = folder
        self.problems: list[str] = []
        self.violations: list[Violation] = []
        self._threads: list[threading.Thread] = []
        self._actions: dict[str, Callable[[Fault], None]] = {
            "kill-relay": self._kill,
            "kill-consumer": self._kill,
            "kill-relay-at-point": self._at_point,
            "kill-consumer-at-point": self._at_point,
            "freeze-relay": self._freeze,
            "freeze-consumer": self._freeze,
            "freeze-relay-at-point": self._at_point,
            "freeze-consumer-at-point": self._at_point,
            "kill-beat": self._kill_beat,
            "kill-writer": lambda fault: crew.signal(fault.target, signal.SIGKILL),
            "stop-relay": self._stop,
            "stop-consumer": self._stop,
            "kill-connections": lambda _fault: self._kill_connections(),
            "empty-redis": lambda _fault: servers.empty_redis(),
            "rebalance": self._rebalance,
            "duplicates": self._duplicate,
            "pause": self._pause,
            "skew": lambda fault: self._order("skew", fault),
            "full-queue": lambda fault: self._order("queue", fault),
            "freeze-database": lambda fault: self._freeze_server("mariadb", fault),
            "freeze-redis": lambda fault: self._freeze_server("redis", fault),
            "freeze-broker": lambda fault: self._freeze_server("kafka", fault),
            "restart-database": lambda fault: self._restart_server("mariadb", fault),
            "restart-redis": lambda fault: self._restart_server("redis", fault),
            "restart-broker": lambda fault: self._restart_server("kafka", fault),
        }

    def begin(self, faults: tuple[Fault, ...]) -> None:
        """Start the clock of the run."""
        started = time.monotonic()
        for fault in faults:
            thread = threading.Thread(target=self._carry_out, args=(fault, started), name=fault.kind)
            thread.start()
            self._threads.append(thread)

    def wait_over(self) -> None:
        """Wait until every fault is over, and put everything right."""
        for thread in self._threads:
            thread.join()
        if isinstance(self._servers, OwnServers):
            self._servers.heal()
        for kind in ("points", "skew", "queue"):
            for order in (self._folder / kind).iterdir():
                order.unlink(missing_ok=True)
        self._crew.kill(GUEST_NAME)
        self._crew.ensure_running()
        if self._book.rows("SELECT 1 FROM outbox_paused_types"):
            self.resume()  # the pause's own end met a database that was away

    def _carry_out(self, fault: Fault, started: float) -> None:
        time.sleep(max(0.0, started + fault.at - time.monotonic()))
        try:
            self._actions[fault.kind](fault)
        except Exception as error:  # a fault that another one made impossible is no failure of the product
            self.problems.append(f"{fault.kind}: {type(error).__name__}: {error}")

    def _kill(self, fault: Fault) -> None:
        self._crew.signal(fault.target, signal.SIGKILL)
        time.sleep(fault.seconds)
        self._crew.start(fault.target)

    def _kill_beat(self, fault: Fault) -> None:
        """The worker ends by itself, because it has no beat any more; then both are started again."""
        if not self._crew.has_beat("relay-a") or self._crew.is_frozen("relay-a"):
            return
        pid = self._crew.pid("relay-a")
        self._crew.kill_beat("relay-a")
        time.sleep(fault.seconds)
        if not self._crew.wait_gone("relay-a", BEAT_SECONDS) and self._crew.pid("relay-a") == pid:
            self.violations.append(Violation("beat", f"the worker lived {BEAT_SECONDS} s without its beat"))
        self._crew.start("relay-a")

    def _stop(self, fault: Fault) -> None:
        self._crew.signal(fault.target, signal.SIGTERM)
        self._crew.wait_gone(fault.target, 10)
        self._crew.start(fault.target)

    def _freeze(self, fault: Fault) -> None:
        self._crew.signal(fault.target, signal.SIGSTOP)
        time.sleep(fault.seconds)
        self._crew.signal(fault.target, signal.SIGCONT)

    def _at_point(self, fault: Fault) -> None:
        point, verb, times = fault.detail.split()
        order = self._folder / "points" / f"{fault.target}.{point}"
        order.write_text(f"{verb} {times}")
        is_there = self._crew.is_frozen if verb == "stop" else lambda name: not self._crew.is_running(name)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: is_there(fault.target), POINT_SECONDS)
            time.sleep(fault.seconds)
        order.unlink(missing_ok=True)
        self._crew.signal(fault.target, signal.SIGCONT)
        self._crew.start(fault.target)

    def _kill_connections(self) -> None:
        # Several times, so that no statement of the writers gets away by luck.
        for _ in range(3):
            self._servers.kill_connections()
            time.sleep(0.1)

    def _rebalance(self, fault: Fault) -> None:
        self._crew.start(GUEST_NAME)
        time.sleep(fault.seconds)
        self._crew.signal(GUEST_NAME, signal.SIGTERM)
        self._crew.wait_gone(GUEST_NAME, 10)

    def _pause(self, fault: Fault) -> None:
        """An operator holds every event for a while."""
        self.manage("pauses", "outbox", "pause", "--all", "--reason", "faults", "--yes")
        time.sleep(fault.seconds)
        self.resume()

    def resume(self) -> None:
        """Let every event type go on."""
        self.manage("resumes", "outbox", "resume", "--all", "--reason", "faults", "--yes")

    def manage(self, name: str, *arguments: str) -> None:
        """Run a command of the product to its end."""
        self._crew.start(name, "manage", *arguments)
        if not self._crew.wait_gone(name, 30):
            raise RuntimeError(f"{arguments} does not end:\n{self._crew.log_tail(name)}")

    def _order(self, kind: str, fault: Fault) -> None:
        order = self._folder / kind / fault.target
        order.write_text(fault.detail)
        time.sleep(fault.seconds)
        order.unlink(missing_ok=True)

    def _freeze_server(self, name: str, fault: Fault) -> None:
        assert isinstance(self._servers, OwnServers)
        self._servers.freeze(name)
        time.sleep(fault.seconds)
        self._servers.thaw(name)

    def _restart_server(self, name: str, fault: Fault) -> None:
        assert isinstance(self._servers, OwnServers)
        self._servers.end(name, fault.detail or "kill")
        time.sleep(fault.seconds)
        self._servers.start(name)

    def _duplicate(self, fault: Fault) -> None:
        """Publish the last messages of every partition once more, as a producer that heard no answer would."""
        common = {"bootstrap.servers": self._servers.kafka, "log_level": 0}
        reader = Consumer(common | {"group.id": f"{self._servers.name}-reader", "enable.auto.commit": False})
        writer = Producer(common | {"partitioner": "murmur2_random"})
        try:
            for message in self._last_messages(reader, int(fault.detail)):
                writer.produce(message.topic(), value=message.value(), key=message.key())
            writer.flush(3)
        except KafkaException as error:
            self.problems.append(f"duplicates: {error.args[0].name()}")
        finally:
            reader.close()

    def _last_messages(self, reader: Consumer, amount: int) -> list:
        known = reader.list_topics(self._servers.topic, timeout=2).topics[self._servers.topic].partitions
        places = []
        for number in known:
            low, end = reader.get_watermark_offsets(TopicPartition(self._servers.topic, number), timeout=2)
            if end > low and end != OFFSET_INVALID:
                places.append(TopicPartition(self._servers.topic, number, max(low, end - max(1, amount // len(known)))))
        reader.assign(places)
        found = reader.consume(amount, 0.5) if places else []
        return [message for message in found if message.error() is None]
