"""The command line: which servers, one after the other or all at once, what is printed and the exit code.

Exit codes: 0 done; 1 failed, the last line says why; 2 wrong usage; 3 this machine cannot have it, one line says why.
"""

import argparse
import fcntl
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from native import lifecycle
from native.errors import ServiceError
from native.kafka import Kafka
from native.mariadb import MariaDB
from native.packages import ensure, ensure_promtool
from native.redis import Redis
from native.service import Say, Service, base_folder

KINDS: dict[str, type[Service]] = {kind.name: kind for kind in (MariaDB, Redis, Kafka)}
# Longer than the slowest start on a fresh machine: downloads, packages and a cold disk.
LOCK_SECONDS = 600
ONE: dict[str, Callable[[Service, Say], None]] = {
    "pause": lifecycle.pause,
    "resume": lifecycle.resume,
    "kill": lifecycle.kill,
}


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ServiceError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="services.py", description="Real MariaDB, Redis and Kafka on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "start", _start, "start what does not run yet and wait until it answers").add_argument(
        "--started-file", type=Path, metavar="FILE", help="write the names of those this call started"
    )
    _add(commands, "stop", _stop, "stop what this script started")
    _add(commands, "status", _status, "say what runs; exit 1 unless everything answers")
    _add(commands, "env", _env, 'print the exports that lead there: eval "$(scripts/services.py env)"').add_argument(
        "--free-ports", action="store_true", help="other ports where a stranger listens on ours; eval before start"
    )
    install = _add(commands, "install", _install, "install missing programs only")
    install.add_argument("--browser", action="store_true", help="Chromium and its driver too")
    install.add_argument("--promtool", action="store_true", help="promtool alone: it checks the alert rules")
    for name, summary in {
        "restart": "stop and start one",
        "pause": "freeze one (SIGSTOP)",
        "resume": "let one go on (SIGCONT)",
        "kill": "end one at once (SIGKILL)",
    }.items():
        one = commands.add_parser(name, help=summary)
        one.add_argument("name", choices=KINDS)
        one.set_defaults(run=_restart if name == "restart" else _one, action=name)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary)
    command.add_argument("--only", type=_names, default=list(KINDS), metavar="NAME[,NAME]", help=", ".join(KINDS))
    command.set_defaults(run=run)
    return command


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(KINDS)}")
    return names


def _chosen(options: argparse.Namespace) -> list[Service]:
    return [KINDS[name]() for name in options.only]


def _say(service: Service) -> Say:
    begun = time.monotonic()

    def say(text: str) -> None:
        # One write a line: servers start in parallel and print in parallel.
        sys.stdout.write(f"{service.name:8} {time.monotonic() - begun:5.1f} s  {text}\n")
        sys.stdout.flush()

    return say


@contextmanager
def _alone() -> Iterator[None]:
    """Let one command at a time change what runs in this checkout."""
    base_folder().mkdir(parents=True, exist_ok=True)
    with (base_folder() / "lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(lock.fileno()):
            if time.monotonic() > deadline:
                raise ServiceError(f"another services.py still works after {LOCK_SECONDS} s")
            time.sleep(0.1)
        yield


def _lock(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(options: argparse.Namespace) -> int:
    services = _chosen(options)
    with _alone():
        _ensure_programs(services)
        with ThreadPoolExecutor(len(services)) as pool:
            outcomes = list(pool.map(_try_start, services))
    started = [service.name for service, outcome in zip(services, outcomes, strict=True) if outcome is True]
    if options.started_file:
        options.started_file.write_text(",".join(started))
    failures = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    for failure in failures:
        print(failure, file=sys.stderr, flush=True)
    return max((failure.exit_code for failure in failures), default=0)


def _try_start(service: Service) -> bool | ServiceError:
    say = _say(service)
    try:
        started = lifecycle.start(service, say)
    except ServiceError as error:
        return error
    if started:
        say(f"ready on port {service.port}")
    return started


def _ensure_programs(services: list[Service]) -> None:
    absent = [service for service in services if not service.is_given and service.pid_file.process() is None]
    wants_driver = any(isinstance(service, MariaDB) for service in absent)
    ensure([program for service in absent for program in service.needs()], driver=wants_driver)


def _stop(options: argparse.Namespace) -> int:
    services = _chosen(options)
    with _alone(), ThreadPoolExecutor(len(services)) as pool:
        list(pool.map(lambda service: lifecycle.stop(service, _say(service)), services))
    return 0


def _restart(options: argparse.Namespace) -> int:
    service = KINDS[options.name]()
    if service.is_given:
        raise ServiceError(f"{service.name}: {service.variable} names a server of yours, not restarted")
    say = _say(service)
    with _alone():
        lifecycle.stop(service, say)
        _ensure_programs([service])
        lifecycle.start(service, say)
    say(f"ready on port {service.port}")
    return 0


def _one(options: argparse.Namespace) -> int:
    service = KINDS[options.name]()
    with _alone():
        ONE[options.action](service, _say(service))
    return 0


def _status(options: argparse.Namespace) -> int:
    shown = {service.name: lifecycle.describe(service) for service in _chosen(options)}
    for name, (_, text) in shown.items():
        print(f"{name:8} {text}")
    return 0 if all(usable for usable, _ in shown.values()) else 1


def _env(options: argparse.Namespace) -> int:
    for service in _chosen(options):
        if options.free_ports:
            service.avoid_taken_ports()
        for variable, value in service.exports().items():
            print(f"export {variable}={shlex.quote(value)}")
    return 0


def _install(options: argparse.Namespace) -> int:
    if options.promtool:
        ensure_promtool()
        return 0
    services = [service for service in _chosen(options) if not service.is_given]
    browser = ["chromium", "chromedriver"] if options.browser else []
    ensure([*(program for service in services for program in service.needs()), *browser], driver=True)
    return 0
