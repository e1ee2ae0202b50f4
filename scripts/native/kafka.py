"""Apache Kafka: one KRaft node from Maven's jars, broker and controller in one process, no topic made by accident."""

import base64
import hashlib
import shutil
import socket
import struct
import subprocess
import uuid
from pathlib import Path

from native.errors import CannotBeHad, ServiceError
from native.packages import find
from native.process import tail
from native.service import HOST, ROOT, Address, Say, Service, receive

DOWNLOAD_SECONDS = 300
FORMAT_SECONDS = 60
POM = ROOT / "scripts" / "kafka-pom.xml"

CONFIGURATION = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A test of a killed member may ask for less patience than the default's least of 6 s.
group.min.session.timeout.ms=1000
# A killed broker may register again only when its old session has run out; the default of 9 s is waiting for nothing.
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=3000
"""


class Kafka(Service):
    """The broker."""

    name = "kafka"
    variable = "KAFKA_BOOTSTRAP_SERVERS"
    ports = {"SMARTFLOW_KAFKA_PORT": 19092, "SMARTFLOW_KAFKA_CONTROLLER_PORT": 19093}
    programs = ("java", "mvn")
    start_seconds = 90

    @property
    def own_url(self) -> str:
        return f"{HOST}:{self.port}"

    def needs(self) -> tuple[str, ...]:
        return ("java",) if self._has_jars() else self.programs

    def addresses(self, url: str) -> list[Address]:
        pairs = [server.strip().rpartition(":") for server in url.split(",")]
        if not all(host and port.isdigit() for host, _, port in pairs):
            raise ServiceError(f"KAFKA_BOOTSTRAP_SERVERS is not host:port[,host:port]; example: {self.own_url}")
        return [(host, int(port)) for host, _, port in pairs]

    def greet(self, connection: socket.socket) -> bool:
        """Ask for the supported API versions (key 18, version 0): the one request every broker answers first."""
        body = struct.pack(">hhih", 18, 0, 1, -1)
        connection.sendall(struct.pack(">i", len(body)) + body)
        return receive(connection, 8)[4:] == struct.pack(">i", 1)

    def prepare(self, say: Say) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._has_jars():
            say("fetching its jars, 43 MB")
            self._download()
        data = self.folder / "data"
        port, controller = self.numbers
        self._configuration.write_text(CONFIGURATION.format(host=HOST, port=port, controller=controller, data=data))
        if not (data / "meta.properties").exists():
            say("formatting its storage")
            self._format(data)

    def command(self) -> list[str]:
        # 512 MB is enough for tests and benchmarks here; more lets the page cache shrink on a small machine.
        logging = [f"-Dorg.slf4j.simpleLogger.{key}" for key in ("showDateTime=true", "showThreadName=false")]
        return [str(find("java")), "-Xmx512m", *logging, *self._classpath, "kafka.Kafka", str(self._configuration)]

    @property
    def _configuration(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _libs(self) -> Path:
        return self.folder / "libs"

    @property
    def _classpath(self) -> list[str]:
        return ["-cp", f"{self._libs}/*"]

    def _has_jars(self) -> bool:
        stamp = self._libs / "pom.sha256"
        return stamp.exists() and stamp.read_text() == _pom_hash()

    def _download(self) -> None:
        """Fetch the jars into a draft folder, so that an interrupted download is not taken for a whole one."""
        draft = self.folder / "libs.new"
        shutil.rmtree(draft, ignore_errors=True)
        arguments = ["--batch-mode", "--quiet", f"--file={POM}", "dependency:copy-dependencies"]
        if self._run([str(find("mvn")), *arguments, f"-DoutputDirectory={draft}"], DOWNLOAD_SECONDS):
            raise CannotBeHad(f"kafka: Maven could not fetch the jars ({_first_error(self.log)})")
        (draft / "pom.sha256").write_text(_pom_hash())
        shutil.rmtree(self._libs, ignore_errors=True)
        draft.rename(self._libs)

    def _format(self, data: Path) -> None:
        # meta.properties is written last, so a folder without one is the rest of an interrupted attempt.
        shutil.rmtree(data, ignore_errors=True)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
        arguments = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._configuration)]
        if self._run([str(find("java")), *self._classpath, *arguments], FORMAT_SECONDS):
            raise ServiceError(f"{tail(self.log)}\nkafka: formatting {data} failed")

    def _run(self, command: list[str], seconds: int) -> int:
        try:
            with self.log.open("wb") as output:
                return subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=seconds, check=False
                ).returncode
        except subprocess.TimeoutExpired as error:
            raise ServiceError(
                f"kafka: `{Path(command[0]).name}` took more than {seconds} s, see {self.log}"
            ) from error


def _pom_hash() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()


def _first_error(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("[ERROR]")]
    return lines[0].removeprefix("[ERROR]").strip()[:300] if lines else f"see {log}"
