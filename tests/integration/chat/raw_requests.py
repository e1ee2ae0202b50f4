"""The raw ASGI routes of runs without a server: requests go in, messages come out."""

import asyncio
import json

from chat.api.run_routes import RunParts, RunRoutes
from chat.operations import Claimant
from chat.runs.executor import ExecutorLimits, RunExecutor
from chat.runs.hints import Hints
from chat.runs.logs import RunLogs
from chat.runs.tails import TailLimits, Tails
from smartflow.accounts.queries import find_live_sessions
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import utc_now

OWNER = "tests"
LIMITS = TailLimits(most=100, most_of_user=3, ping_seconds=5, slow_seconds=20)


class UnaskedModel:
    """Fails the test when anything goes to the model."""

    def stream(self, request):
        raise AssertionError(f"asked: {request}")

    async def aclose(self):
        """Nothing was opened."""


class Server:
    """The routes and what they touch, on the running event loop."""

    def __init__(self, database: DatabaseThreads, *, model=None, limits=LIMITS, is_separate=False):
        self.database = database
        self.hints = Hints(redis_url="", prefix="tests")
        self.logs = RunLogs(database=database, hints=self.hints)
        self.tails = Tails(limits=limits, live_sessions=self._find_live_sessions)
        self.executor = RunExecutor(
            model=model or UnaskedModel(),
            database=database,
            clock=utc_now,
            limits=ExecutorLimits(lease_seconds=15, max_live_runs=5, max_input_tokens=1000, reserved_tokens=0),
            logs=self.logs,
        )
        self.routes = RunRoutes(
            RunParts(
                database=database,
                logs=self.logs,
                hints=self.hints,
                tails=self.tails,
                executor=None if is_separate else self.executor,
                claimant=Claimant(owner="" if is_separate else OWNER, lease_seconds=15),
                clock=utc_now,
                lease_clock=utc_now,
            )
        )

    async def _find_live_sessions(self, session_ids):
        return await self.database.run(find_live_sessions, session_ids=session_ids, now=utc_now())

    async def close(self):
        await self.executor.shutdown(grace_seconds=0)
        await self.tails.close()
        await self.logs.close()

    async def ask(self, method, path, *, token="", body=None, query="", into=None, **headers):
        """Send one request and return its answer, read to its end; `into` is an answer that is looked at before."""
        answer = into or Answer()
        await self.routes(_scope(method, path, token, query, headers), _receiver(body, answer), answer.send)
        return answer


class Answer:
    """What was sent."""

    def __init__(self):
        self.status = 0
        self.headers = {}
        self.parts = []
        self.is_whole = False
        self.has_left = False

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.parts.append(message["body"])
            self.is_whole = not message.get("more_body", False)

    @property
    def body(self):
        return b"".join(self.parts)

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        """The ids and the data of its events; the data of an end mark is None."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if lines:
                data = lines["data"]
                found.append((lines["id"], None if data == "[DONE]" else json.loads(data)))
        return found

    @property
    def text(self):
        """What a client shows: the pieces in order, a snapshot in place of all before it."""
        shown = ""
        for _id, data in self.events:
            content = ((data or {}).get("choices") or [{"delta": {}}])[0]["delta"].get("content", "")
            is_snapshot = (data or {}).get("extra", {}).get("kind") == "snapshot"
            shown = content if is_snapshot else shown + content
        return shown


def _scope(method, path, token, query, headers):
    named = {"authorization": f"Bearer {token}", "content-type": "application/json"} if token else {}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    pairs = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    return {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": pairs}


def _receiver(body, answer):
    """As a server does it: the body comes once, and whoever asks again waits until the client has left."""
    parts = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive():
        if parts and not answer.has_left:
            return parts.pop()
        while not answer.has_left:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    return receive
