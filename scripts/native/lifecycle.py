"""Start, stop, pause, resume and kill one server; every signal goes through its pid file, which proves it is ours."""

import signal
import time

from native.errors import ServiceError
from native.process import spawn, tail
from native.service import Say, Service

POLL_SECONDS = 0.1
# How many looks in a row must miss a starting process before it counts as ended.
MISSES = 5


def start(service: Service, say: Say) -> bool:
    """Bring a server up and wait until it answers; return whether this call started a process."""
    if service.is_given:
        _check_given(service, say)
        return False
    running = service.pid_file.process()
    if running is None:
        service.check_ports()
        service.prepare(say)
        pid = spawn(service.command(), service.log, service.folder)
        service.pid_file.write(pid, service.marker)
        say("starting")
    elif running.is_stopped:
        resume(service, say)
    _wait_ready(service)
    if running is not None:
        say(f"already running on port {service.port} (pid {running.pid})")
    return running is None


def _check_given(service: Service, say: Say) -> None:
    if not service.answers():
        raise ServiceError(f"{service.name}: the server that {service.variable} names does not answer")
    say(f"given by {service.variable}, answers")


def _wait_ready(service: Service) -> None:
    deadline = time.monotonic() + service.start_seconds
    missed = 0
    while not service.answers():
        # Redis writes its own command line anew while it starts; for a moment it looks like somebody else's process.
        missed = missed + 1 if service.pid_file.process() is None else 0
        if missed > MISSES:
            raise ServiceError(f"{tail(service.log)}\n{service.name}: ended before it was ready, log: {service.log}")
        if time.monotonic() > deadline:
            waited = f"not ready after {service.start_seconds} s"
            raise ServiceError(f"{tail(service.log)}\n{service.name}: {waited}, log: {service.log}")
        time.sleep(POLL_SECONDS)


def stop(service: Service, say: Say) -> None:
    """End a server we started, gently first; a server we did not start is left alone."""
    # A paused process receives SIGTERM only once it goes on.
    if not service.pid_file.send(signal.SIGTERM, signal.SIGCONT):
        service.pid_file.path.unlink(missing_ok=True)
        say("given by its variable, left alone" if service.is_given else "not running")
        return
    if not service.pid_file.wait_gone(service.stop_seconds):
        say(f"still there after {service.stop_seconds} s, killing it")
        kill(service, say)
    say("stopped")


def kill(service: Service, say: Say) -> None:
    """End a server we started without giving it time for anything."""
    _signal(service, signal.SIGKILL)
    if not service.pid_file.wait_gone(10):
        raise ServiceError(f"{service.name}: survived SIGKILL for 10 s")
    say("killed")


def pause(service: Service, say: Say) -> None:
    """Freeze a server: its connections stay open and nothing answers."""
    _signal(service, signal.SIGSTOP)
    say("paused")


def resume(service: Service, say: Say) -> None:
    """Let a frozen server go on, and wait until it answers."""
    _signal(service, signal.SIGCONT)
    _wait_ready(service)
    say("resumed")


def _signal(service: Service, signum: signal.Signals) -> None:
    if not service.pid_file.send(signum):
        owner = f"{service.variable} names a server of yours" if service.is_given else "it does not run"
        raise ServiceError(f"{service.name}: nothing to signal, {owner}")


def describe(service: Service) -> tuple[bool, str]:
    """Return whether the server can be used now, and that in words."""
    if service.is_given:
        answers = service.answers()
        return answers, f"given by {service.variable}, {'answers' if answers else 'does not answer'}"
    process = service.pid_file.process()
    if process is None:
        return False, "not running"
    where = f"on port {service.port} (pid {process.pid}), log: {service.log}"
    if process.is_stopped:
        return False, f"paused {where}"
    answers = service.answers()
    return answers, f"{'running' if answers else 'does not answer'} {where}"
