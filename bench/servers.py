"""Real MariaDB, Redis and Kafka: started when they are absent, ended only when started here.

Each bench takes a corner of its own on them: a new database, a Redis database, a topic and a consumer group.
"""

import os
import secrets
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from bench.processes import PYTHON, ROOT, wait_until

try:
    import MySQLdb
except ImportError:  # no compiler when the environment was made
    MySQLdb = None

SCRIPT = ROOT / "scripts" / "services.py"
# Where the stacks of tests note which Redis database is taken, so that a bench beside them takes another.
_REDIS_KEY = "smartflow-stack:{number}"
PARTITIONS = 6
_REDIS_NUMBERS = range(2, 16)
_REDIS_LEASE_SECONDS = 1200


class ServersAbsent(Exception):
    """This machine has no MariaDB, Redis and Kafka; the message says why."""


@contextmanager
def running_servers() -> Iterator[dict[str, str]]:
    """Start what does not run and give the variables that lead there. Raises: ServersAbsent."""
    if MySQLdb is None:
        raise ServersAbsent("the MySQL driver is not in .venv")
    variables = _exports()
    environment = {**os.environ, **variables}
    with tempfile.TemporaryDirectory() as folder:
        started = Path(folder) / "started"
        try:
            done = _services("start", "--started-file", str(started), environment=environment)
            if done.returncode:
                raise ServersAbsent(done.stderr.strip().splitlines()[-1])
            yield variables
        finally:
            names = started.read_text() if started.exists() else ""
            if names:
                _services("stop", "--only", names, environment=environment)


@contextmanager
def own_database(variables: dict[str, str], *, pool_mb: int) -> Iterator[dict[str, str]]:
    """Start a MariaDB with a pool of this size beside the others; its data go with it. Raises: ServersAbsent."""
    with tempfile.TemporaryDirectory(prefix="smartflow-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)  # the server's account has to come in
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = {
            "SMARTFLOW_SERVICES_DIR": folder,
            "SMARTFLOW_MARIADB_PORT": str(port),
            "SMARTFLOW_MARIADB_POOL_MB": str(pool_mb),
        }
        environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | own
        try:
            done = _services("start", "--only", "mariadb", environment=environment)
            if done.returncode:
                raise ServersAbsent(done.stderr.strip().splitlines()[-1])
            yield {**variables, "DATABASE_URL": _exports(environment)["DATABASE_URL"]}
        finally:
            _services("stop", "--only", "mariadb", environment=environment)


def _exports(environment: dict[str, str] | None = None) -> dict[str, str]:
    done = _services("env", "--free-ports", environment=environment or dict(os.environ))
    if done.returncode:
        raise ServersAbsent(done.stderr.strip().splitlines()[-1])
    lines = (shlex.split(line)[1] for line in done.stdout.splitlines() if line.startswith("export "))
    return dict(line.split("=", 1) for line in lines)


def _services(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


class Corner:
    """A database, a Redis database, a topic and a group of this bench alone; close() removes them."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.name = f"smartflow_bench_{secrets.token_hex(4)}"
        self._url = urlsplit(variables["DATABASE_URL"])
        self._redis_url = urlsplit(variables["REDIS_URL"])
        self.kafka = variables["KAFKA_BOOTSTRAP_SERVERS"]
        self.topic = f"{self.name}.agent.outbox"
        self._secret = secrets.token_hex(32)
        connection = self.connect(database=None)
        connection.cursor().execute(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        connection.close()
        self._redis_number = self._claim_redis_number()
        self.admin = AdminClient({"bootstrap.servers": self.kafka})

    def environment(self) -> dict[str, str]:
        """Return the variables of the product's processes."""
        redis_url = f"redis://{self._redis_url.hostname}:{self._redis_url.port}/{self._redis_number}"
        return {
            "DATABASE_URL": self._url._replace(path=f"/{self.name}").geturl(),
            "REDIS_URL": redis_url,
            "CELERY_BROKER_URL": redis_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "OUTBOX_TOPIC_PREFIX": self.name,
            "OUTBOX_CONSUMER_GROUP": self.name,
            "SECRET_KEY": self._secret,
            "JWT_ACCESS_SECRET": f"access-{self._secret}",
            "JWT_REFRESH_SECRET": f"refresh-{self._secret}",
        }

    def connect(self, *, database: str | None = "") -> Any:
        """Open a connection with autocommit, to the corner's database unless None is asked for."""
        chosen = {} if database is None else {"database": database or self.name}
        return MySQLdb.connect(
            host=self._url.hostname,
            port=self._url.port or 3306,
            user=self._url.username,
            password=self._url.password,
            charset="utf8mb4",
            autocommit=True,
            **chosen,
        )

    def wake_relays(self) -> None:
        """Say what a commit says: rows that SQL put in would else be found up to a second later."""
        with self._redis(self._redis_number) as client:
            client.publish(f"{self.name}.outbox.wake", "*")

    def create_topic(self, topic: str) -> None:
        """Make a topic and wait until its partitions answer."""
        self.admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1)])[topic].exception(
            10
        )

        def answers() -> bool:
            try:
                return self.count_messages(topic) >= 0
            except (KafkaException, KeyError):
                return False

        wait_until(answers, seconds=10, what=f"partitions of {topic}")

    def count_messages(self, topic: str) -> int:
        """Return how many messages a topic keeps."""
        partitions = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in partitions}
        return sum(future.result().offset for future in self.admin.list_offsets(asked).values())

    def close(self) -> None:
        """Remove everything."""
        connection = self.connect(database=None)
        connection.cursor().execute(f"DROP DATABASE {self.name}")
        connection.close()
        with self._redis(self._redis_number) as client:
            client.flushdb()
        with self._redis(0) as client:
            client.delete(_REDIS_KEY.format(number=self._redis_number))
        self._delete_topics()

    def _delete_topics(self) -> None:
        try:
            mine = [topic for topic in self.admin.list_topics(timeout=10).topics if topic.startswith(f"{self.name}.")]
        except KafkaException:
            return  # the broker is away; what it keeps is read by nobody
        for future in self.admin.delete_topics(mine).values() if mine else ():
            future.exception(10)

    def _claim_redis_number(self) -> int:
        with self._redis(0) as client:
            for number in _REDIS_NUMBERS:
                key = _REDIS_KEY.format(number=number)
                if client.set(key, time.time(), nx=True, ex=_REDIS_LEASE_SECONDS):
                    break
            else:
                raise ServersAbsent("every Redis database is taken by another run")
        with self._redis(number) as client:
            client.flushdb()
        return number

    def _redis(self, number: int) -> redis.Redis:
        return redis.Redis(host=str(self._redis_url.hostname), port=self._redis_url.port or 6379, db=number)
