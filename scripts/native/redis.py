"""Redis: cache and Celery's broker, in memory only, so that a restart shows what losing it costs."""

import socket
from urllib.parse import urlsplit

from native.errors import ServiceError
from native.packages import find
from native.service import HOST, Address, Say, Service

CONFIGURATION = """\
bind {host}
port {port}
dir {folder}
save ""
appendonly no
# The process keeps the command line it was started with: it is how the process is recognised.
set-proc-title no
"""


class Redis(Service):
    """The cache and the job queue."""

    name = "redis"
    variable = "REDIS_URL"
    ports = {"SMARTFLOW_REDIS_PORT": 16379}
    programs = ("redis-server",)
    start_seconds = 20

    @property
    def own_url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def exports(self) -> dict[str, str]:
        """Return also the broker's address: a database of its own, so that emptying the cache keeps the queue."""
        broker = self.url if self.is_given else f"redis://{HOST}:{self.port}/1"
        return {**super().exports(), "CELERY_BROKER_URL": broker}

    def addresses(self, url: str) -> list[Address]:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ServiceError(f"REDIS_URL names no Redis; example: REDIS_URL={self.own_url}")
        return [(parts.hostname, parts.port or 6379)]

    def greet(self, connection: socket.socket) -> bool:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))

    def prepare(self, say: Say) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = CONFIGURATION.format(host=HOST, port=self.port, folder=self.folder)
        (self.folder / "redis.conf").write_text(text)

    def command(self) -> list[str]:
        return [str(find("redis-server")), str(self.folder / "redis.conf")]
