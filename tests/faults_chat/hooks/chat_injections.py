"""Where a process of the chat suite may be told to kill or stop itself: see tests/faults/hooks/faults_injections.py.

points/<process>.after-begin   a turn is committed and nobody was told
                 after-claim   a run was taken over
                 word          a piece of text came from the model
                 after-save    progress is in the database
                 before-end, after-end
"""

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from faults_injections import _surround

Change = Callable[[ModuleType], None]


def _points_of_operations(module: ModuleType) -> None:
    """The package's own names: executors and routes call by these."""
    _surround(module, "begin_turn", after="after-begin")
    _surround(module, "claim_run", after="after-claim")
    _surround(module, "save_progress", after="after-save")
    _surround(module, "finish_run", before="before-end", after="after-end")


def _signed_connections(module: ModuleType) -> None:
    """Let the database's triggers know which process writes."""
    original = module.DatabaseWrapper.init_connection_state

    def init_connection_state(self: Any) -> None:
        original(self)
        with self.cursor() as cursor:
            cursor.execute("SET @faults_pid = %s", [os.getpid()])

    module.DatabaseWrapper.init_connection_state = init_connection_state


CHANGES: dict[str, list[Change]] = {
    "chat.operations": [_points_of_operations],
    "django.db.backends.mysql.base": [_signed_connections],
    "chat.runs.log": [lambda module: _surround(module.RunLog, "say", before="word")],
}
