"""The faults of a chat run: those of tests/faults, aimed at web processes and executors."""

from pathlib import Path

from tests.faults.crew import Crew
from tests.faults.injector import Injector
from tests.faults.servers import Book, Servers


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
        }
