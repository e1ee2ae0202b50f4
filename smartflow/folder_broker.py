"""The embedded Celery broker: one file a message in a folder. Chosen by `filesystem://`, registered in celery.py.

kombu's own filesystem transport shows a file before it is written: a reader in between gets half a message and its
worker ends for good. Here a file appears whole or not at all, and nothing that a kill leaves behind can stop a start.
Losing a message here loses a tick of the timetable or a relay's next pass, nothing else.
"""

import contextlib
import os
import threading
import time
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import virtual
from kombu.utils.json import dumps, loads

from smartflow.kernel.ids import new_uuid

_SUFFIX = ".msg"
# A draft this old belongs to a process that was killed while it wrote.
_ABANDONED_SECONDS = 60.0


class FolderChannel(virtual.Channel):
    """Queues as files named by time; bindings stay in memory, since both ends declare the same ones."""

    def _put(self, queue: str, message: dict[str, Any], **_kwargs: Any) -> None:
        """Write a draft and give it its name: the rename is what readers see."""
        name = f"{time.time_ns():020d}-{new_uuid()}.{queue}"
        draft = self._folder / f"{name}.draft"
        draft.write_text(dumps(message), encoding="utf-8")
        draft.rename(self._folder / f"{name}{_SUFFIX}")

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        """Take the oldest message. Raises: Empty."""
        for path in self._waiting(queue):
            # One name a thread, used again each time: what a kill leaves of it takes no room.
            mine = self._folder / f"taken-{os.getpid()}-{threading.get_ident()}"
            try:
                path.rename(mine)
            except FileNotFoundError:
                continue  # another worker was faster
            with contextlib.suppress(ValueError):  # damaged by a full disk: as good as lost
                message: dict[str, Any] = loads(mine.read_text(encoding="utf-8"))
                mine.unlink()
                return message
        self._sweep()
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._waiting(queue))

    def _purge(self, queue: str) -> int:
        waiting = self._waiting(queue)
        for path in waiting:
            path.unlink(missing_ok=True)
        return len(waiting)

    def _waiting(self, queue: str) -> list[Path]:
        ending = f".{queue}{_SUFFIX}"
        return [self._folder / name for name in sorted(os.listdir(self._folder)) if name.endswith(ending)]

    def _sweep(self) -> None:
        """Remove what killed processes left."""
        for name in os.listdir(self._folder):
            path = self._folder / name
            with contextlib.suppress(FileNotFoundError):
                if not name.endswith(_SUFFIX) and time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()

    @property
    def _folder(self) -> Path:
        client: Any = self.connection.client
        return Path(client.transport_options["data_folder_in"])


class FolderTransport(virtual.Transport):
    """Makes channels; what is bound to what is known to the whole process."""

    implements = virtual.Transport.implements.extend(exchange_type=frozenset(["direct", "topic"]))
    Channel = FolderChannel
    global_state = virtual.BrokerState()
    default_port = 0
    driver_type = "filesystem"
    driver_name = "folder"

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.state = self.global_state

    def driver_version(self) -> str:
        """Return what the banner shows."""
        return "1"
