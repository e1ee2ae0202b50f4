"""Measures the task routes beside bare Django: the same requests to both servers, in turns, in one run."""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from bench.api.load import Ask, Clients, Round
from bench.figures import Load, spread
from bench.first_token import sign_up
from bench.installation import Installation
from bench.processes import BenchFailed
from bench.servers import Corner
from bench.statements import queries

CONNECTIONS = 4
FEW, MANY = 1_000, 100_000
GOAL = 0.5
_API = "/api/v1/task"
_BARE = "-m uvicorn bench.api.bare:application --host 127.0.0.1 --port {port} --no-access-log"
# The limits are at work, and refuse nobody.
VARIABLES = {
    "RATE_LIMITS": "on",
    **{f"RATE_LIMIT_{name}": "999999/1" for name in ("AUTH", "AUTH_NAME", "READ", "WRITE", "ADDRESS")},
}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is asked."""

    rounds: int
    share: float = 1.0  # of the requests of a round


@dataclass(frozen=True, kw_only=True)
class View:
    """One thing to ask for: a stream of requests for each connection, and how many of each a round sends."""

    name: str
    asks: list[Iterator[Ask]]
    each: int
    most_rounds: int = 99


class ApiBench:
    """The product and the bare application, both started, and tasks for them."""

    def __init__(self, installation: Installation, corner: Corner, effort: Effort, exits: ExitStack) -> None:
        self.views: dict[str, Any] = {}
        self._installation = installation
        self._effort = effort
        self._table = exits.enter_context(closing(corner.connect()))
        installation.start("web", **VARIABLES)
        exits.callback(installation.stop, "web")
        port = installation.start_beside("bare", _BARE)
        exits.callback(installation.stop, "bare")
        ports = {"web": installation.port, "bare": port}
        self._clients = {
            side: exits.enter_context(closing(Clients(port, connections=CONNECTIONS))) for side, port in ports.items()
        }
        tokens = sign_up(installation.base_url, CONNECTIONS + 2)
        ids = self._user_ids(len(tokens))
        self._fill(ids[0], FEW)
        self._fill(ids[1], MANY)
        for user_id in ids[2:]:
            self._fill(user_id, 5_000)
        self._few, self._many, *writers = tokens
        self._writers = list(zip(ids[2:], writers, strict=True))
        self._rows("ANALYZE TABLE tasks")

    def measure(self, *, may_go_on: Callable[[], bool], load: Load) -> None:
        """Measure one view after the other; what is whole stands in `views`."""
        self._check_answers()
        for view in self._views():
            self.views[view.name] = self._measure_view(view, may_go_on)
            load.look()
        self._installation.check_alive()

    def _views(self) -> list[View]:
        def lists(token: str, query: str = "", connections: int = CONNECTIONS) -> list[Iterator[Ask]]:
            ask = Ask(method="GET", path=f"{_API}/get{query}", token=token)
            return [itertools.repeat(ask) for _ in range(connections)]

        return [
            View(name=f"list of {FEW:,}", asks=lists(self._few), each=25),
            View(name=f"first 100 of {FEW:,}", asks=lists(self._few, "?limit=100"), each=50),
            View(name=f"first 100 of {MANY:,}", asks=lists(self._many, "?limit=100"), each=50),
            View(name=f"list of {MANY:,}", asks=lists(self._many, connections=1), each=1, most_rounds=3),
            View(name="create", asks=[_creations(token) for _user_id, token in self._writers], each=40),
            View(name="complete", asks=[self._completions(*writer) for writer in self._writers], each=40),
        ]

    def _measure_view(self, view: View, may_go_on: Callable[[], bool]) -> dict[str, Any]:
        each = max(1, round(view.each * self._effort.share))
        rounds: dict[str, list[Round]] = {side: [] for side in self._clients}
        for clients in self._clients.values():  # connections, copies, the database's pool
            clients.round(view.asks, each=max(1, each // 5))
        statements: dict[str, float] = {}
        seconds = dict.fromkeys(self._clients, 0.0)
        for _ in range(min(self._effort.rounds, view.most_rounds)):
            for side, clients in self._clients.items():
                self._installation.statements.begin()
                before = self._installation.cpu_seconds(side)
                rounds[side].append(clients.round(view.asks, each=each))
                seconds[side] += self._installation.cpu_seconds(side) - before
                time.sleep(0.05)  # the counts are written by the process itself
                counts = self._installation.statements.since(side)
                statements[f"{side}_queries"] = round(queries(counts) / (each * len(view.asks)), 2)
            if not may_go_on():
                break
        ratios = [ours.rate / bare.rate for ours, bare in zip(rounds["web"], rounds["bare"], strict=True)]
        figures: dict[str, Any] = {"rounds": len(ratios), "ratio": round(statistics.median(ratios), 3)}
        figures["ratios"] = [round(ratio, 3) for ratio in ratios]
        for side, found in rounds.items():
            asked = sum(len(one.times) for one in found)
            figures[f"{side}_cpu_ms"] = round(seconds[side] / asked * 1000, 2)
            figures[f"{side}_rate"] = round(statistics.median(one.rate for one in found), 1)
            figures |= {
                f"{side}_{name}_ms": value
                for name, value in spread([time for one in found for time in one.times], 0.5, 0.95).items()
            }
        return {**figures, **statements, "answer_bytes": len(rounds["web"][-1].last)}

    def _check_answers(self) -> None:
        """Refuse to measure two things that are not the same."""
        for query in ("", "?limit=100"):
            ask = Ask(method="GET", path=f"{_API}/get{query}", token=self._few)
            answers = [clients.ask(ask) for clients in self._clients.values()]
            ours, bare = [(headers.get("x-next-cursor"), data) for headers, data in answers]
            if ours != bare:
                raise BenchFailed(f"the two answers to {ask.path} differ: {str(ours)[:300]} and {str(bare)[:300]}")
        for asks in (_creations(self._writers[0][1]), self._completions(*self._writers[0])):
            ours, bare = [_without_numbers(clients.ask(next(asks))[1]) for clients in self._clients.values()]
            if ours != bare:
                raise BenchFailed(f"the two answers to a write differ: {ours} and {bare}")

    def _completions(self, user_id: int, token: str) -> Iterator[Ask]:
        sql = "SELECT id FROM tasks WHERE user_id = %s AND is_completed = 0 ORDER BY id"
        for (task_id,) in self._rows(sql, user_id):
            body = json.dumps({"task_id": task_id}).encode()
            yield Ask(method="PUT", path=f"{_API}/complete", token=token, body=body)

    def _user_ids(self, count: int) -> list[int]:
        return [row[0] for row in self._rows("SELECT id FROM users ORDER BY id DESC LIMIT %s", count)][::-1]

    def _fill(self, user_id: int, count: int) -> None:
        """Give a user so many tasks, as writers would have left them: two in three completed, most with a deadline."""
        self._rows("INSERT INTO task_revisions (user_id, revision) VALUES (%s, UUID())", user_id)
        self._rows(
            "INSERT INTO tasks (user_id, title, priority, estimated_sections, is_completed, completed_at, deadline_at,"
            " urgency_threshold_at, created_at, updated_at)"
            " SELECT %s, CONCAT('高等数学作业 chapter ', seq), seq %% 4 + 1, seq %% 4 + 1, seq %% 3 > 0,"
            " IF(seq %% 3 > 0, UTC_TIMESTAMP(6), NULL),"
            " IF(seq %% 5, UTC_TIMESTAMP(6) + INTERVAL seq %% 90 + 3 DAY, NULL),"
            " IF(seq %% 5, UTC_TIMESTAMP(6) + INTERVAL seq %% 90 + 2 DAY, NULL),"
            " UTC_TIMESTAMP(6) - INTERVAL %s - seq SECOND, UTC_TIMESTAMP(6) FROM seq_1_to_" + str(count),
            user_id,
            count,
        )

    def _rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._table.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return list(cursor.fetchall())


def _creations(token: str) -> Iterator[Ask]:
    for number in itertools.count():
        wanted = {
            "title": f"高等数学作业 chapter {number}",
            "priority_group": 2,
            "estimated_sections": 2,
            "deadline_at": "2036-03-05T15:59:00+08:00",
        }
        body = json.dumps(wanted).encode()
        yield Ask(method="POST", path=f"{_API}/create", token=token, body=body)


def _without_numbers(data: dict[str, Any]) -> dict[str, Any]:
    own = ("id", "task_id", "title", "created_at", "completed_at")
    return {name: value if name not in own else type(value).__name__ for name, value in data.items()}
