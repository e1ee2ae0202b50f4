"""Programs the servers need, and the Debian packages they come from.

Installs only as root and only where apt-get exists; anywhere else a missing program is an error that names it. What a
package starts by itself on its default port is left alone: it is not ours.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from native.errors import CannotBeHad

# Servers live in sbin, which is not on everyone's PATH.
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
INSTALL_SECONDS = 900
PACKAGE_OF = {
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "redis-server": "redis-server",
    "java": "default-jre-headless",
    "mvn": "maven",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}
# mysqlclient has no Linux wheel: without these the driver cannot be built, and a real MariaDB is of no use.
DRIVER_PROGRAMS = {"cc": "gcc", "pkg-config": "pkg-config", "mariadb_config": "default-libmysqlclient-dev"}
JAVA_MINIMUM = 17
PROMTOOL = Path("/usr/local/bin/promtool")


def find(program: str) -> str | None:
    """Return the path of a program, or None."""
    search = os.environ.get("PATH", "")
    return shutil.which(program, path=f"{search}:{SBIN}" if "bin" in search else search)


def ensure(programs: Iterable[str], *, driver: bool = False) -> None:
    """Install what is absent among `programs` (and, with `driver`, what builds mysqlclient); raise if that fails."""
    wanted = {name: PACKAGE_OF[name] for name in programs}
    missing = {name: package for name, package in wanted.items() if find(name) is None}
    if driver and _can_install():
        missing |= _driver_gaps()
    if missing:
        _install(missing)
    if "java" in wanted:
        _check_java()


def ensure_promtool() -> None:
    """Take the one program out of its package (19 MB, 48 unpacked), which would bring a server and start it."""
    if find("promtool") is not None:
        return
    if not _can_install():
        raise CannotBeHad("promtool missing: it is in the Debian package prometheus, which only root may fetch")
    print("fetching promtool", flush=True)
    with TemporaryDirectory() as folder:
        try:
            _apt("download", "prometheus", folder=folder)
        except CannotBeHad:  # the lists are absent, or older than what the archive keeps
            _apt("update")
            _apt("download", "prometheus", folder=folder)
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=False)
        found = Path(folder, "usr/bin/promtool")
        if not found.exists():
            raise CannotBeHad("the package prometheus brought no promtool")
        shutil.move(found, PROMTOOL)


def _can_install() -> bool:
    return os.geteuid() == 0 and find("apt-get") is not None


def _driver_gaps() -> dict[str, str]:
    gaps = {name: package for name, package in DRIVER_PROGRAMS.items() if find(name) is None}
    header = Path(sysconfig.get_path("include"), "Python.h")
    # Only Debian's own Python keeps its headers in a package.
    if header.is_relative_to("/usr/include") and not header.exists():
        gaps[str(header)] = "python3-dev"
    return gaps


def _install(missing: dict[str, str]) -> None:
    names = ", ".join(sorted(missing))
    packages = sorted(set(missing.values()))
    if not _can_install():
        reason = "apt-get is not here" if find("apt-get") is None else "only root may install packages"
        raise CannotBeHad(f"{names} missing and {reason}: install {' '.join(packages)}")
    print(f"installing {' '.join(packages)}", flush=True)
    _apt("update")
    _apt("install", "--yes", "--no-install-recommends", *packages)
    absent = sorted(name for name in missing if find(name) is None and not Path(name).exists())
    if absent:
        raise CannotBeHad(f"{', '.join(absent)} still missing after installing {' '.join(packages)}")


def _apt(*arguments: str, folder: str | None = None) -> None:
    command = ["apt-get", "--quiet=2", "-o", "DPkg::Lock::Timeout=300", *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
            cwd=folder,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired as error:
        raise CannotBeHad(f"`apt-get {arguments[0]}` took more than {INSTALL_SECONDS} s") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise CannotBeHad(f"`apt-get {' '.join(arguments)}` failed: {last}")


def _check_java() -> None:
    shown = subprocess.run([str(find("java")), "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < JAVA_MINIMUM:
        first = (shown.splitlines() or ["nothing"])[0]
        raise CannotBeHad(f"Kafka needs Java {JAVA_MINIMUM} or newer, `java -version` says: {first}")
