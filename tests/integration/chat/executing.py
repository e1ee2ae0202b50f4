"""An executor as a process has it, with a model whose every step the test decides."""

import asyncio
from contextlib import asynccontextmanager

from chat.llm.port import StreamEnded, TextDelta, UsageReported
from chat.runs.executor import ExecutorLimits, RunExecutor
from chat.runs.hints import Hints
from chat.runs.logs import RunLogs
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import utc_now
from tests.integration.chat.turns import LEASE_SECONDS

END = StreamEnded("stop")


class SteppedModel:
    """Yields what the test puts into it; an exception is raised. Remembers what it was asked."""

    def __init__(self, *answers):
        self.requests = []
        self.closed = 0
        self._answers = list(answers)
        self.steps = asyncio.Queue()

    def put(self, *events):
        for event in events:
            self.steps.put_nowait(TextDelta(event) if isinstance(event, str) else event)

    async def stream(self, request):
        self.requests.append(request)
        try:
            for event in self._answers.pop(0) if self._answers else ():
                if isinstance(event, Exception):
                    raise event
                yield TextDelta(event) if isinstance(event, str) else event
                if isinstance(event, StreamEnded):
                    return
            while True:
                event = await self.steps.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, StreamEnded):
                    return
        finally:
            self.closed += 1

    async def aclose(self):
        """Nothing to give back."""


class Bench:
    """The parts of one process."""

    def __init__(self, model, **limits):
        self.model = model
        self.given_back = []
        self.database = DatabaseThreads(threads=2)
        self.hints = Hints(redis_url="", prefix="tests")
        self.logs = RunLogs(database=self.database, hints=self.hints)
        self.executor = RunExecutor(
            model=model,
            database=self.database,
            logs=self.logs,
            clock=utc_now,
            limits=ExecutorLimits(
                **{
                    "lease_seconds": LEASE_SECONDS,
                    "max_live_runs": 50,
                    "max_input_tokens": 224_000,
                    "reserved_tokens": 28_000,
                    **limits,
                }
            ),
            on_given_back=self.given_back.append,
        )

    async def run(self, function, **arguments):
        return await self.database.run(lambda: function(**arguments))

    async def ended(self, log):
        """Wait for the run's end."""
        await until(lambda: log.end_of_run is not None)
        return log.end_of_run


@asynccontextmanager
async def process(model, **limits):
    """One process; nothing of it is left behind."""
    bench = Bench(model, **limits)
    try:
        yield bench
    finally:
        await bench.executor.shutdown(grace_seconds=0)
        await bench.logs.close()
        await bench.hints.close()
        bench.database.close()


async def until(condition, seconds=10.0):
    """Let the event loop work until the condition is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def usage(prompt=10, completion=5):
    return UsageReported(prompt, completion, prompt + completion)
