"""What a stack stands on: embedded parts in a folder of its own, or real servers in a corner of their own."""

import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import redis
from confluent_kafka.admin import AdminClient

from tests.stack.proxy import Proxy
from tests.workers import FIRST_REDIS_NUMBER

SERVICE_VARIABLES = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")
# 0 and 1 are for hand work, those behind for the tests' workers.
_REDIS_NUMBERS = range(2, FIRST_REDIS_NUMBER)
_REDIS_LEASE_SECONDS = 1200


class Parts(Protocol):
    """Where a stack's data is, and how a test looks at it."""

    def environment(self) -> dict[str, str]:
        """The variables that lead there."""

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """What a query gives; `?` stands for a parameter."""

    def heal(self) -> None:
        """Undo what a test did to connections."""

    def close(self) -> None:
        """Give everything back."""


class EmbeddedParts:
    """SQLite, the local transport, Celery's folder: all below the stack's data folder."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "data" / "smartflow.sqlite3"

    def environment(self) -> dict[str, str]:
        return {}

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=20)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, parameters)]
        finally:
            connection.close()

    def heal(self) -> None:
        """Nothing stands between."""

    def close(self) -> None:
        """The folder is the caller's."""


class ServiceParts:
    """A new database, a Redis database, a topic and a group on the running servers; MariaDB and Redis behind doors."""

    def __init__(self) -> None:
        name = f"smartflow_stack_{secrets.token_hex(4)}"
        self._database_url = urlsplit(os.environ["DATABASE_URL"])
        self._redis_url = urlsplit(os.environ["REDIS_URL"])
        self._kafka = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        self.name = name
        self._secret = secrets.token_hex(32)
        self._connection = self._connect()
        self._run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        self._run(f"USE {name}")
        self._redis_number = self._claim_redis_number()
        self.database = Proxy((str(self._database_url.hostname), self._database_url.port or 3306))
        self.redis = Proxy((str(self._redis_url.hostname), self._redis_url.port or 6379))

    def environment(self) -> dict[str, str]:
        url = self._database_url
        redis_url = f"redis://127.0.0.1:{self.redis.port}/{self._redis_number}"
        return {
            "DATABASE_URL": f"mysql://{url.username}:{url.password}@127.0.0.1:{self.database.port}/{self.name}",
            "REDIS_URL": redis_url,
            "CELERY_BROKER_URL": redis_url,
            "KAFKA_BOOTSTRAP_SERVERS": self._kafka,
            "OUTBOX_TOPIC_PREFIX": self.name,
            "OUTBOX_CONSUMER_GROUP": self.name,
            **{f"{name}_SECRET": f"{name}-{self._secret}" for name in ("JWT_ACCESS", "JWT_REFRESH")},
            "SECRET_KEY": self._secret,
        }

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        return self._run(sql.replace("?", "%s"), parameters)

    def run_streams(self) -> list[str]:
        """The keys of the runs that Redis holds."""
        with self._redis(self._redis_number) as client:
            return [key.decode() for key in client.scan_iter(f"{self.name}.run:*")]

    def forget_runs(self) -> int:
        """Delete what Redis holds of runs, as their expiry or a restarted server would; return of how many."""
        keys = self.run_streams()
        with self._redis(self._redis_number) as client:
            return int(client.delete(*keys)) if keys else 0

    def heal(self) -> None:
        self.database.heal()
        self.redis.heal()

    def close(self) -> None:
        self.database.close()
        self.redis.close()
        self._run(f"DROP DATABASE {self.name}")
        self._connection.close()
        with self._redis(self._redis_number) as client:
            client.flushdb()
        with self._redis(0) as client:
            client.delete(self._redis_key(self._redis_number))
        for future in AdminClient({"bootstrap.servers": self._kafka}).delete_topics(self._topics()).values():
            future.exception(30)  # a broker that was frozen a moment ago takes its time

    def _topics(self) -> list[str]:
        known = AdminClient({"bootstrap.servers": self._kafka}).list_topics(timeout=5).topics
        return [topic for topic in known if topic.startswith(f"{self.name}.")] or [f"{self.name}.agent.outbox"]

    def _connect(self) -> Any:
        import MySQLdb  # absent where there is no MariaDB

        url = self._database_url
        return MySQLdb.connect(
            host=url.hostname,
            port=url.port or 3306,
            user=url.username,
            password=url.password,
            charset="utf8mb4",
            autocommit=True,
        )

    def _run(self, sql: str, parameters: tuple[object, ...] = ()) -> list[dict[str, Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _claim_redis_number(self) -> int:
        with self._redis(0) as client:
            for number in _REDIS_NUMBERS:
                if client.set(self._redis_key(number), time.time(), nx=True, ex=_REDIS_LEASE_SECONDS):
                    break
            else:
                raise RuntimeError("every Redis database is taken by another stack")
        with self._redis(number) as client:
            client.flushdb()
        return number

    @staticmethod
    def _redis_key(number: int) -> str:
        return f"smartflow-stack:{number}"

    def _redis(self, number: int) -> redis.Redis:
        return redis.Redis(host=str(self._redis_url.hostname), port=self._redis_url.port or 6379, db=number)
