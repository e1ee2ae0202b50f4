"""MariaDB: own data folder, durable commits, binary utf8mb4 collation, a user who may create test databases."""

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from native.errors import ServiceError
from native.packages import find
from native.process import tail
from native.service import HOST, Address, Say, Service, read_number, receive

INSTALL_SECONDS = 120
USER = DATABASE = PASSWORD = "smartflow"  # The server listens on this machine only.

POOL_MB = 256

# Durability as in production: a test that kills the server must find every commit. The pool is small on purpose.
CONFIGURATION = """\
[mariadbd]
user={account}
datadir={data}
# Relative to the data folder: the path of a socket may not exceed 107 bytes, and a checkout may lie deep.
socket=mariadbd.sock
pid-file=mariadbd.pid
bind-address={host}
port={port}
skip-name-resolve
init-file={init}
character-set-server=utf8mb4
collation-server=utf8mb4_bin
innodb_flush_log_at_trx_commit=1
innodb_buffer_pool_size={pool}M
max_connections=1000
# A readiness probe hangs up before it logs in; it must never get this machine blocked.
max_connect_errors=1000000
log_warnings=1
"""

# Runs at every start, before the first connection is accepted. One statement a line: the server demands it.
INIT = """\
CREATE DATABASE IF NOT EXISTS {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER IF NOT EXISTS '{user}'@'{host}' IDENTIFIED BY '{password}';
GRANT ALL ON `smartflow%`.* TO '{user}'@'{host}';
GRANT ALL ON `test\\_smartflow%`.* TO '{user}'@'{host}';
"""


class MariaDB(Service):
    """The database."""

    name = "mariadb"
    variable = "DATABASE_URL"
    ports = {"SMARTFLOW_MARIADB_PORT": 13306}
    programs = ("mariadbd", "mariadb-install-db")
    start_seconds = 60

    @property
    def own_url(self) -> str:
        return f"mysql://{USER}:{PASSWORD}@{HOST}:{self.port}/{DATABASE}"

    def addresses(self, url: str) -> list[Address]:
        parts = urlsplit(url)
        if parts.scheme not in ("mysql", "mariadb") or not parts.hostname:
            raise ServiceError(f"DATABASE_URL names no MariaDB; example: DATABASE_URL={self.own_url}")
        return [(parts.hostname, parts.port or 3306)]

    def greet(self, connection: socket.socket) -> bool:
        packet = receive(connection, 5)
        return packet[4:] == b"\x0a"  # Protocol 10; an error packet begins with 0xff.

    def prepare(self, say: Say) -> None:
        account, init = self._account(), self.folder / "init.sql"
        self.folder.mkdir(parents=True, exist_ok=True)
        init.write_text(INIT.format(user=USER, database=DATABASE, password=PASSWORD, host=HOST))
        self._configuration.write_text(
            CONFIGURATION.format(
                account=account,
                data=self._data,
                host=HOST,
                port=self.port,
                init=init,
                pool=read_number("SMARTFLOW_MARIADB_POOL_MB", POOL_MB),
            )
        )
        if os.geteuid() == 0:
            shutil.chown(self.folder, account)
        if not (self._data / "mysql").is_dir():
            say("creating its system tables")
            self._create_data(account)

    def command(self) -> list[str]:
        return [str(find("mariadbd")), f"--defaults-file={self._configuration}"]

    @property
    def _configuration(self) -> Path:
        return self.folder / "my.cnf"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _account(self) -> str:
        """The server refuses to be root by accident; below a folder only root may enter it has to be, on purpose."""
        if os.geteuid() != 0:
            return pwd.getpwuid(os.geteuid()).pw_name
        known = any(entry.pw_name == "mysql" for entry in pwd.getpwall())
        existing = [parent for parent in self.folder.parents if parent.exists()]
        return "mysql" if known and all(parent.stat().st_mode & 0o001 for parent in existing) else "root"

    def _create_data(self, account: str) -> None:
        """Create the system tables in a draft folder, so that an interrupted attempt leaves nothing behind."""
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        zones = self._write_time_zones()
        # Its own: two that are set up at once give their temporary tables the same names.
        scratch = self.folder / "tmp"
        scratch.mkdir(exist_ok=True)
        scratch.chmod(0o1777)
        command = [str(find("mariadb-install-db")), "--no-defaults", f"--user={account}", f"--datadir={draft}"]
        command.append(f"--tmpdir={scratch}")
        # --force: the installer gives up on a machine whose own name cannot be looked up, as in many containers.
        command += ["--auth-root-authentication-method=normal", "--skip-test-db", "--force", *zones]
        with self.log.open("wb") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=INSTALL_SECONDS, check=False
            )
        if done.returncode:
            raise ServiceError(f"{tail(self.log)}\nmariadb: mariadb-install-db failed, its whole output: {self.log}")
        draft.rename(self._data)

    def _write_time_zones(self) -> list[str]:
        """Django's date lookups convert between named zones: without these tables they return NULL."""
        program, zones = find("mariadb-tzinfo-to-sql"), Path("/usr/share/zoneinfo")
        if program is None or not zones.is_dir():
            return []
        path = self.folder / "time_zones.sql"
        with path.open("wb") as output:
            subprocess.run([program, str(zones)], stdout=output, stderr=subprocess.DEVNULL, check=False)
        return [f"--extra-file={path}"]
