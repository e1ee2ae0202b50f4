"""outbox/database_errors.py: which errors pass by themselves, and how often a lost conflict is run again."""

import sqlite3
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from django.db import IntegrityError, InterfaceError, OperationalError

from outbox import database_errors
from outbox.tally import TALLY


@pytest.fixture
def mariadb(monkeypatch):
    monkeypatch.setattr(database_errors, "connection", SimpleNamespace(vendor="mysql", in_atomic_block=False))


@pytest.fixture
def sqlite(monkeypatch):
    monkeypatch.setattr(database_errors, "connection", SimpleNamespace(vendor="sqlite", in_atomic_block=False))


@pytest.mark.parametrize("code", [1020, 1205, 1213, 1040, 1053, 1290, 1927, 2002, 2006, 2013, 4031])
@pytest.mark.usefixtures("mariadb")
def test_is_away_when_mariadb_is_down_or_busy(code):
    assert database_errors.is_away(OperationalError(code, "…"))


@pytest.mark.parametrize("code", [1054, 1292, 1364, 1366, 1690, 1317, 1969, 3024])
@pytest.mark.usefixtures("mariadb")
def test_is_away_is_false_when_mariadb_refuses_the_statement(code):
    assert not database_errors.is_away(OperationalError(code, "…"))


@pytest.mark.parametrize("error", [ValueError(1213), IntegrityError(1062, "duplicate"), OperationalError()])
@pytest.mark.usefixtures("mariadb")
def test_is_away_is_false_when_the_error_is_of_another_kind(error):
    assert not database_errors.is_away(error)


def sqlite_error(code: int) -> OperationalError:
    cause = sqlite3.OperationalError("…")
    cause.sqlite_errorcode = code
    error = OperationalError("…")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
@pytest.mark.usefixtures("sqlite")
def test_is_away_when_the_sqlite_file_is_locked_or_unusable(code):
    assert database_errors.is_away(sqlite_error(code))


@pytest.mark.usefixtures("sqlite")
def test_is_away_is_false_when_sqlite_refuses_the_statement():
    assert not database_errors.is_away(sqlite_error(sqlite3.SQLITE_ERROR))


def test_is_away_when_the_connection_is_closed():
    assert database_errors.is_away(InterfaceError("connection already closed"))


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Collect the waits between tries instead of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


class AnsweringConnection:
    """A connection to a server that answers, or whose new connections fail."""

    vendor = "mysql"

    def __init__(self, *, answers: bool = True, in_atomic_block: bool = False) -> None:
        self.calls: list[str] = []
        self.in_atomic_block = in_atomic_block
        self._answers = answers

    def close(self) -> None:
        self.calls.append("close")

    @contextmanager
    def cursor(self):
        if not self._answers:
            raise OperationalError(2002, "cannot connect")
        yield SimpleNamespace(execute=self.calls.append)


LOST = OperationalError(2013, "lost")


@pytest.mark.parametrize("error", [LOST, OperationalError(1927, "killed"), InterfaceError("closed")])
def test_answers_after_a_lost_connection_asks_on_a_new_one(monkeypatch, error):
    asked = AnsweringConnection()
    monkeypatch.setattr(database_errors, "connection", asked)

    assert database_errors.answers_after(error)
    assert asked.calls == ["close", "SELECT 1"]


def test_answers_after_a_conflict_asks_on_the_same_connection(monkeypatch):
    asked = AnsweringConnection()
    monkeypatch.setattr(database_errors, "connection", asked)

    assert database_errors.answers_after(OperationalError(1205, "waited too long"))
    assert asked.calls == ["SELECT 1"]


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (LOST, AnsweringConnection(answers=False)),
        (LOST, AnsweringConnection(in_atomic_block=True)),
        (OperationalError(1290, "read-only: it answers, and takes nothing"), AnsweringConnection()),
        (OperationalError(2002, "cannot connect"), AnsweringConnection()),
    ],
    ids=["no answer", "in a transaction", "read-only", "cannot connect"],
)
def test_answers_after_is_false_when_the_server_is_away(monkeypatch, error, asked):
    monkeypatch.setattr(database_errors, "connection", asked)

    assert not database_errors.answers_after(error)


@pytest.mark.usefixtures("sqlite")
def test_answers_after_is_false_on_sqlite_which_locks_as_a_whole():
    assert not database_errors.answers_after(InterfaceError("closed"))


class Losing:
    """A step that loses its first `times` conflicts."""

    def __init__(self, times: int, code: int = 1213) -> None:
        self.times, self.code, self.calls = times, code, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise OperationalError(self.code, "lost")
        return "done"


@pytest.mark.parametrize("code", [1213, 1205, 1020])
@pytest.mark.usefixtures("mariadb")
def test_repeat_on_conflict_runs_the_step_again_when_it_lost_and_counts_it(code):
    step = Losing(4, code)
    TALLY.take()

    assert database_errors.repeat_on_conflict(step) == "done"
    assert step.calls == 5
    assert TALLY.take() == {"conflicts": 4}


@pytest.mark.usefixtures("mariadb")
def test_repeat_on_conflict_pauses_longer_each_time_and_never_as_long_as_another(pauses):
    for _ in range(200):
        database_errors.repeat_on_conflict(Losing(4))

    longest = [max(pauses[number::4]) for number in range(4)]
    assert all(0.8 * most < seconds <= most for seconds, most in zip(longest, (0.02, 0.04, 0.08, 0.16), strict=True))
    assert len(set(pauses)) == len(pauses) == 800


@pytest.mark.usefixtures("mariadb")
def test_repeat_on_conflict_does_not_pause_without_a_conflict(pauses):
    assert database_errors.repeat_on_conflict(Losing(0)) == "done"
    assert pauses == []


@pytest.mark.usefixtures("mariadb")
def test_repeat_on_conflict_waits_once_for_a_lock_when_the_caller_says_so():
    step = Losing(1, code=1205)

    with pytest.raises(OperationalError):
        database_errors.repeat_on_conflict(step, is_wait_repeated=False)
    assert step.calls == 1
    assert database_errors.repeat_on_conflict(Losing(4), is_wait_repeated=False) == "done"


@pytest.mark.usefixtures("mariadb")
def test_repeat_on_conflict_raises_when_the_last_try_lost_too():
    step = Losing(99)

    with pytest.raises(OperationalError):
        database_errors.repeat_on_conflict(step)
    assert step.calls == 5


@pytest.mark.usefixtures("mariadb")
def test_repeat_on_conflict_raises_at_once_when_no_second_try_can_help():
    step = Losing(1, code=2006)

    with pytest.raises(OperationalError):
        database_errors.repeat_on_conflict(step)
    assert step.calls == 1


def test_repeat_on_conflict_raises_at_once_when_the_transaction_is_the_callers(monkeypatch):
    monkeypatch.setattr(database_errors, "connection", SimpleNamespace(vendor="mysql", in_atomic_block=True))
    step = Losing(1)

    with pytest.raises(OperationalError):
        database_errors.repeat_on_conflict(step)
    assert step.calls == 1
