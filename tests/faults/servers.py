"""The servers of a campaign: a MariaDB, a Redis and a Kafka of its own, which it may freeze, kill and start again.

`SharedServers` takes those of the environment instead and leaves them alone: then no fault of a server is drawn.
"""

import contextlib
import fcntl
import os
import random
import secrets
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from confluent_kafka.admin import AdminClient

from tests.stack.processes import ROOT
from tests.workers import FIRST_REDIS_NUMBER

sys.path.insert(0, str(ROOT / "scripts"))

from native import lifecycle
from native.kafka import Kafka
from native.mariadb import MariaDB
from native.redis import Redis
from native.service import Service, is_free

FOLDER = ROOT / "var" / "faults"
# Redis has 16 databases; the harness of journeys notes here which are taken.
_REDIS_KEY = "smartflow-stack:{number}"
_REDIS_LEASE_SECONDS = 7200
VARIABLES = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")


def _say_nothing(_text: str) -> None:
    """Nobody wants to read every restart."""


class Servers:
    """Addresses, and a corner of the campaign's own on them: a database, a topic, a group."""

    has_faults = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = ""
        self._secret = secrets.token_hex(32)
        self.database_url = self.redis_url = self.kafka = ""

    def environment(self) -> dict[str, str]:
        """The variables of the product's processes."""
        url = urlsplit(self.database_url)
        return {
            "DATABASE_URL": url._replace(path=f"/{self.name}").geturl(),
            "REDIS_URL": self.redis_url,
            "CELERY_BROKER_URL": self.redis_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "OUTBOX_TOPIC_PREFIX": self.name,
            "OUTBOX_CONSUMER_GROUP": self.name,
            "SECRET_KEY": self._secret,
            "JWT_ACCESS_SECRET": f"access-{self._secret}",
            "JWT_REFRESH_SECRET": f"refresh-{self._secret}",
        }

    @property
    def topic(self) -> str:
        """Where the product publishes conversations' events."""
        return f"{self.name}.agent.outbox"

    def connect(self, *, database: bool = True) -> Any:
        """Open a connection with autocommit. Raises: OperationalError while the server is away."""
        import MySQLdb

        url = urlsplit(self.database_url)
        chosen = {"database": self.name} if database else {}
        return MySQLdb.connect(
            host=url.hostname,
            port=url.port,
            user=url.username,
            password=url.password,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=5,
            read_timeout=20,
            **chosen,
        )

    def open(self) -> None:
        """Make sure that the servers answer."""

    def close(self) -> None:
        """Give the servers back."""

    def open_corner(self) -> None:
        """Make a new database; topic and group are named after it."""
        self.name = f"smartflow_faults_{secrets.token_hex(4)}"
        connection = self.connect(database=False)
        connection.cursor().execute(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        connection.close()

    def close_corner(self) -> None:
        """Remove what the campaign left."""
        connection = self.connect(database=False)
        connection.cursor().execute(f"DROP DATABASE {self.name}")
        connection.close()
        self.empty_redis()
        for future in AdminClient({"bootstrap.servers": self.kafka}).delete_topics([self.topic]).values():
            future.exception(10)

    def kill_connections(self) -> int:
        """Break every connection to the campaign's database but the asking one; return how many."""
        connection = self.connect(database=False)
        killed = 0
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", [self.name])
            for (number,) in cursor.fetchall():
                with contextlib.suppress(Exception):
                    cursor.execute(f"KILL CONNECTION {int(number)}")
                    killed += 1
        finally:
            connection.close()
        return killed

    def empty_redis(self) -> None:
        """Lose everything Redis held."""
        redis.Redis.from_url(self.redis_url, socket_timeout=2).flushdb()


class SharedServers(Servers):
    """The servers of the environment."""

    def open(self) -> None:
        self.database_url = os.environ["DATABASE_URL"]
        self.kafka = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        url = urlsplit(os.environ["REDIS_URL"])
        self._registry = redis.Redis(host=str(url.hostname), port=url.port or 6379, db=0)
        for number in range(2, FIRST_REDIS_NUMBER):
            key = _REDIS_KEY.format(number=number)
            if self._registry.set(key, time.time(), nx=True, ex=_REDIS_LEASE_SECONDS):
                self._key = key
                self.redis_url = url._replace(path=f"/{number}").geturl()
                break
        else:
            raise RuntimeError("every Redis database is taken")
        self.empty_redis()

    def close(self) -> None:
        self._registry.delete(self._key)


class OwnServers(Servers):
    """Servers on free ports, with their data in a folder that the next campaign uses again."""

    has_faults = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._services: dict[str, Service] = {}

    def open(self) -> None:
        self._lock = _first_free_lane(self.folder)
        home = Path(self._lock.name).parent
        libs = home / "kafka" / "libs"
        jars = ROOT / "var" / "services" / "kafka" / "libs"
        if jars.exists() and not libs.exists():
            shutil.copytree(jars, libs)
        for variable in VARIABLES:
            os.environ.pop(variable, None)
        os.environ["SMARTFLOW_SERVICES_DIR"] = str(home)
        # a broker that is killed every few runs spends more on optimising itself than it ever gains
        os.environ["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
        for kind in (MariaDB, Redis, Kafka):
            self._stop_left_over(kind())
            for port in kind.ports:
                os.environ[port] = str(_find_port())
            self._services[kind.name] = kind()
            lifecycle.start(self._services[kind.name], _say_nothing)
        self.database_url = self._services["mariadb"].own_url
        self.redis_url = self._services["redis"].own_url
        self.kafka = self._services["kafka"].own_url

    def close_corner(self) -> None:
        self.heal()
        with contextlib.suppress(Exception):
            super().close_corner()

    def close(self) -> None:
        for service in self._services.values():
            lifecycle.stop(service, _say_nothing)
        self._lock.close()

    @staticmethod
    def _stop_left_over(service: Service) -> None:
        """End a server that a killed campaign left behind."""
        if service.pid_file.process() is not None:
            lifecycle.kill(service, _say_nothing)

    def freeze(self, name: str) -> None:
        """Let a server answer nothing, with every connection open."""
        self._services[name].pid_file.send(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self._services[name].pid_file.send(signal.SIGCONT)

    def end(self, name: str, how: str) -> None:
        """Kill a server, or ask it to end."""
        service = self._services[name]
        if how == "kill":
            service.pid_file.send(signal.SIGKILL, signal.SIGCONT)
            service.pid_file.wait_gone(10)
        else:
            lifecycle.stop(service, _say_nothing)

    def start(self, name: str) -> None:
        """Start a server again and wait until it answers."""
        lifecycle.start(self._services[name], _say_nothing)

    def heal(self) -> None:
        """Thaw and start whatever does not answer."""
        for name in self._services:
            self.thaw(name)
            self.start(name)

    def tails(self) -> str:
        """The last words of every server."""
        return "\n".join(f"--- {s.name}\n{lifecycle.tail(s.log)}" for s in self._services.values())


def _find_port() -> int:
    """A free port outside the range of outgoing connections: one of those would take it while its server is down."""
    return next(port for port in random.sample(range(20_000, 32_000), 12_000) if is_free(port))


def _first_free_lane(folder: Path) -> Any:
    """Campaigns beside each other take a folder each."""
    for number in range(8):
        lane = folder / f"lane-{number}"
        lane.mkdir(parents=True, exist_ok=True)
        lock = (lane / "taken").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return lock
    raise RuntimeError("eight campaigns run already")


class Book:
    """Reads and writes the campaign's database past the product, and waits out a database that is away."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._connection: Any = None

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What a statement gives. It may run twice when the connection breaks, so it must bear that."""
        deadline = time.monotonic() + 60
        while True:
            try:
                if self._connection is None:
                    self._connection = self._servers.connect()
                with self._connection.cursor() as cursor:
                    cursor.execute(sql, parameters or None)
                    return list(cursor.fetchall())
            except Exception as error:
                self._connection = None
                if time.monotonic() > deadline or not _is_away(error):
                    raise
                time.sleep(0.1)


def _is_away(error: Exception) -> bool:
    code = error.args[0] if error.args else None
    return not isinstance(code, int) or code >= 2000 or code in {1053, 1317, 1927, 1205, 1213, 1158, 1159, 1160, 1161}
