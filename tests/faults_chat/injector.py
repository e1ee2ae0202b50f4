"""The faults of a chat run: those of tests/faults, aimed at web processes and executors."""

import contextlib
import signal
from pathlib import Path

from tests.faults.crew import Crew
from tests.faults.injector import POINT_SECONDS, Injector
from tests.faults.plan import Fault
from tests.faults.servers import Book, Servers
from tests.stack.waiting import wait_until


class ChatInjector(Injector):
    """The faults of one run."""

    def __init__(self, crew: Crew, servers: Servers, book: Book, folder: Path) -> None:
        super().__init__(crew, servers, book, folder)
        self._actions |= {
            "kill": self._kill,
            "kill-at-point": self._at_point,
            "kill-worker": self._kill,
            "stop": self._stop,
            "freeze": self._freeze,
            "freeze-at-point": self._at_point,
            "overtaken": self._overtake,
        }

    def _overtake(self, fault: Fault) -> None:
        """Let an owner stand still at a point until another has taken a run over, and go on at once."""
        point, order_text = fault.detail.split(maxsplit=1)
        order = self._folder / "points" / f"{fault.target}.{point}"
        book = Book(self._servers)
        before = _takeovers(book)
        order.write_text(order_text)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self._crew.is_frozen(fault.target), POINT_SECONDS)
            wait_until(lambda: _takeovers(book) > before, fault.seconds)
        order.unlink(missing_ok=True)
        self._crew.signal(fault.target, signal.SIGCONT)
        self._crew.start(fault.target)


def _takeovers(book: Book) -> int:
    return int(book.rows("SELECT COALESCE(SUM(epoch - 1), 0) FROM chat_runs WHERE epoch > 1")[0][0])
