"""What every server has in common: its folder, its ports, its address in the environment, how it is asked if it is up.

A server whose variable (DATABASE_URL, REDIS_URL, KAFKA_BOOTSTRAP_SERVERS) is set to another address than ours is
*given*: it is asked whether it answers and otherwise left alone.
"""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from native.errors import ServiceError
from native.process import PidFile

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
PROBE_SECONDS = 2.0
Address = tuple[str, int]
Say = Callable[[str], None]


def base_folder() -> Path:
    """Return the folder all data, logs and pid files live in."""
    return Path(os.environ.get("SMARTFLOW_SERVICES_DIR") or ROOT / "var" / "services").resolve()


def read_port(variable: str, default: int) -> int:
    """Return the port from the environment or the default; raise when it is not a port."""
    text = os.environ.get(variable) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ServiceError(f"{variable}={text!r} is not a port; example: {variable}={default}")
    return int(text)


def read_number(variable: str, default: int) -> int:
    """Return a positive number from the environment or the default; raise when it is none."""
    text = os.environ.get(variable) or str(default)
    if not text.isdigit() or int(text) == 0:
        raise ServiceError(f"{variable}={text!r} is not a positive number; example: {variable}={default}")
    return int(text)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def find_free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def receive(connection: socket.socket, size: int) -> bytes:
    """Read exactly `size` bytes, or fewer when the other side ends before."""
    received = b""
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            break
        received += chunk
    return received


class Service(ABC):
    """One kind of server."""

    name: str
    variable: str
    ports: dict[str, int]
    programs: tuple[str, ...]
    start_seconds: int
    stop_seconds = 30

    def __init__(self) -> None:
        self.folder = base_folder() / self.name
        self.log = base_folder() / f"{self.name}.log"
        self.pid_file = PidFile(base_folder() / f"{self.name}.pid")
        self.marker = str(self.folder)
        self.numbers = [read_port(variable, default) for variable, default in self.ports.items()]

    @property
    def port(self) -> int:
        """The port clients connect to."""
        return self.numbers[0]

    @property
    def url(self) -> str:
        """What the service's variable holds: the given value, or the address of the server started here."""
        return os.environ.get(self.variable) or self.own_url

    @property
    def is_given(self) -> bool:
        """Whether the environment names a server that this script does not run."""
        given = os.environ.get(self.variable)
        return bool(given) and self.addresses(str(given)) != [(HOST, self.port)]

    def exports(self) -> dict[str, str]:
        """Return the variables that lead to this server, ports included where they are not the default."""
        changed = {name: number for (name, default), number in self._numbered() if number != default}
        return {self.variable: self.url, **{name: str(number) for name, number in changed.items()}}

    def answers(self) -> bool:
        """Whether the server, ours or given, takes part in its own protocol."""
        return any(self._answers_at(address) for address in self.addresses(self.url))

    def _answers_at(self, address: Address) -> bool:
        try:
            with socket.create_connection(address, timeout=PROBE_SECONDS) as connection:
                return self.greet(connection)
        except OSError:
            return False

    def _numbered(self) -> list[tuple[tuple[str, int], int]]:
        return list(zip(self.ports.items(), self.numbers, strict=True))

    def check_ports(self) -> None:
        """Raise when another process listens where this server would."""
        for (variable, _), number in self._numbered():
            if not is_free(number):
                raise ServiceError(
                    f"{self.name}: port {number} is taken by a process this script did not start; "
                    f"set {variable} to a free port"
                )

    def avoid_taken_ports(self) -> None:
        """Move to free ports where another process listens on ours, as the servers of a second checkout do."""
        if not self.is_given and self.pid_file.process() is None:
            self.numbers = [number if is_free(number) else find_free_port() for number in self.numbers]

    def needs(self) -> tuple[str, ...]:
        """Return the programs to find or install before a start."""
        return self.programs

    @property
    @abstractmethod
    def own_url(self) -> str:
        """The address of the server started here."""

    @abstractmethod
    def addresses(self, url: str) -> list[Address]:
        """Return the host and port pairs in a value of the variable; raise when it names no such server."""

    @abstractmethod
    def greet(self, connection: socket.socket) -> bool:
        """Whether the other side of a fresh connection speaks as this server does when it is ready."""

    @abstractmethod
    def prepare(self, say: Say) -> None:
        """Create what the server needs before its first start, and write its configuration."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line; it contains `marker`."""
