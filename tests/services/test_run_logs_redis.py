"""What a run says, through a real Redis: to other processes, past faults, and back after the death of its writer."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from django.conf import settings

from chat.contracts import RunSnapshot, RunState, StartedRun
from chat.queries import list_followed_runs
from chat.run_queries import RunMark, list_run_marks
from chat.runs.hints import RUN_STOP, Hints
from chat.runs.logs import RunLogs
from chat.runs.redis_log import recover_output, stream_of
from chat.runs.wire import RunEnd
from tests.stack.proxy import Proxy

pytestmark = pytest.mark.services
WORDS = [f"word {number} " for number in range(50)]
WHOLE = "".join(WORDS)


class Rows:
    """The database as followers ask it: the one run that a test tells of."""

    def __init__(self, snapshot):
        self.snapshot = snapshot

    async def run(self, function, *, run_ids):
        here = self.snapshot
        if function is list_run_marks:
            units = len(here.text) + len(here.events)
            return [RunMark(here.run_id, here.attempt, here.state == RunState.RUNNING, units)]
        assert function is list_followed_runs
        return [here]


@pytest.fixture
def door(settings):
    """A door in front of Redis, and a prefix that no other test has."""
    if not settings.REDIS_URL:
        pytest.skip("REDIS_URL is not set")
    url = urlsplit(settings.REDIS_URL)
    proxy = Proxy((url.hostname, url.port or 6379))
    settings.REDIS_URL = f"redis://127.0.0.1:{proxy.port}{url.path}"
    settings.OUTBOX_TOPIC_PREFIX = f"test-{uuid4().hex[:12]}"
    yield proxy
    proxy.close()


def recover(run_id, attempt, **known):
    """Ask the Redis of the settings, once."""
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1) as client:
        return recover_output(run_id, attempt, client=client, **known)


@pytest.fixture
def run():
    return StartedRun(
        run_id=str(uuid4()),
        conversation_id="c",
        user_id=1,
        turn_no=1,
        model="worker",
        thinking="auto",
        message="Hello",
        system_prompt="",
        owner="tests",
        request_id="request",
    )


@pytest.fixture
def rows(run):
    return Rows(
        RunSnapshot(
            run_id=run.run_id,
            conversation_id="c",
            user_id=1,
            model="worker",
            attempt=1,
            state=RunState.RUNNING,
            text="",
            events=(),
            error_code="",
            retry_after_seconds=None,
            created_at=datetime(2026, 11, 1, tzinfo=UTC),
        )
    )


@pytest.fixture
async def process(door, rows, settings):
    """Return a function that makes the logs of one more process."""
    made = []

    def make():
        hints = Hints(redis_url=settings.REDIS_URL, prefix=settings.OUTBOX_TOPIC_PREFIX)
        logs = RunLogs(database=rows, hints=hints)
        made.append((logs, hints))
        return logs

    yield make
    door.heal()
    for logs, hints in made:
        await logs.close()
        await hints.close()


async def until(condition, seconds=5):
    """Wait for what other tasks bring about."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


async def shown(log):
    """Wait until readers may see all that was said."""
    while log.shown < log.units:
        await asyncio.wait({log.changed()})


async def say(log, words):
    """Say words a few milliseconds apart, as a model does."""
    for word in words:
        log.say(word)
        await asyncio.sleep(0.002)


async def test_follower_in_another_process_reads_along(process, rows, run):
    owned = process().open(run, 1)
    await say(owned, WORDS[:20])
    followed = process().follow(rows.snapshot)
    await say(owned, WORDS[20:])

    await until(lambda: followed.text == WHOLE)
    rows.snapshot = replace(rows.snapshot, text=WHOLE, state=RunState.FINISHED)
    owned.finish(RunEnd(state=RunState.FINISHED))
    began = monotonic()
    await until(lambda: followed.end_of_run is not None)

    assert monotonic() - began < 0.5
    assert (followed.text, followed.shown) == (WHOLE, len(WHOLE))


async def test_what_is_shown_is_in_redis(process, run, settings):
    logs = process()
    log = logs.open(run, 1)
    log.say("Hello")
    log.note({"kind": "status"})

    assert log.shown == 0
    await shown(log)

    assert log.shown == 6
    recovered = await asyncio.to_thread(recover, run.run_id, 1)
    assert (recovered.text, recovered.events) == ("Hello", ({"at": 5, "data": {"kind": "status"}},))
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        assert 3500 < client.ttl(stream_of(run.run_id)) <= 3600


@pytest.mark.parametrize("fault", ["cut", "freeze"])
async def test_redis_away_holds_text_up_for_a_moment_once_and_is_whole_afterwards(process, door, run, fault):
    logs = process()
    log = logs.open(run, 1)
    await say(log, WORDS[:10])
    await shown(log)
    getattr(door, fault)()

    longest = 0.0
    for word in WORDS[10:40]:
        began = monotonic()
        log.say(word)
        await shown(log)
        longest = max(longest, monotonic() - began)
    door.heal()
    await until(lambda: logs._writer._probing is None, 20)
    await say(log, WORDS[40:])
    await shown(log)

    assert longest < 1.2
    recovered = await asyncio.to_thread(recover, run.run_id, 1)
    assert recovered.text == WHOLE


async def test_follower_gets_past_a_stream_that_was_emptied(process, rows, run, settings):
    logs = process()
    owned = logs.open(run, 1)
    await say(owned, WORDS[:20])
    await shown(owned)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(stream_of(run.run_id))
    await say(owned, WORDS[20:40])
    await shown(owned)

    followed = process().follow(rows.snapshot)
    await asyncio.sleep(0.3)
    assert WHOLE.startswith(followed.text)
    assert followed.text in {"", owned.text}

    rows.snapshot = replace(rows.snapshot, text="".join(WORDS[:30]))
    await until(lambda: followed.text == owned.text)
    assert followed.text == "".join(WORDS[:40])


async def test_follower_lives_on_the_database_while_redis_is_away_from_its_owner(process, door, rows, run):
    followed = process().follow(rows.snapshot)
    door.cut()
    rows.snapshot = replace(rows.snapshot, text="from the database")
    await until(lambda: followed.text == "from the database")

    door.heal()
    owned = process().open(run, 1)
    owned.say("from the database and Redis")
    await until(lambda: followed.text == owned.text)


async def test_run_executed_again_reaches_its_followers(process, rows, run):
    first = process().open(run, 1)
    await say(first, ["a false start"])
    followed = process().follow(rows.snapshot)
    await until(lambda: followed.text == "a false start")

    second = process().open(replace(run, attempt=2), 1)
    await say(second, WORDS)

    await until(lambda: followed.text == WHOLE)
    assert followed.attempt == 2


async def test_run_that_comes_to_its_followers_process_keeps_its_readers(process, rows, run):
    logs = process()
    followed = logs.follow(rows.snapshot)

    owned = logs.open(run, 1)
    await say(owned, ["here"])
    await shown(owned)

    assert owned is followed
    assert (followed.is_owned, followed.text) == (True, "here")


async def test_run_that_is_given_away_is_followed(process, rows, run):
    here, there = process(), process()
    log = here.open(run, 1)
    log.note({"kind": "status"})
    await shown(log)
    here.release(log)

    taken = there.open(replace(run, attempt=2), 1)
    await say(taken, WORDS)

    await until(lambda: log.text == WHOLE)
    assert not log.is_owned


async def test_follower_that_nobody_holds_is_forgotten(process, rows, run, settings):
    logs = process()
    followed = logs.follow(rows.snapshot)
    channel = stream_of(run.run_id)
    with redis.Redis.from_url(settings.REDIS_URL) as client:

        def subscribers():
            return dict(client.pubsub_numsub(channel))[channel.encode()]

        await until(lambda: subscribers() == 1)
        assert logs.find(run.run_id) is followed
        del followed
        await until(lambda: subscribers() == 0)
    assert logs.find(run.run_id) is None


async def test_hint_reaches_other_processes_and_does_so_again_after_a_cut(door, settings):
    sender, receiver = (Hints(redis_url=settings.REDIS_URL, prefix=settings.OUTBOX_TOPIC_PREFIX) for _ in range(2))
    heard = []
    receiver.listen(RUN_STOP, heard.append)
    try:
        await until(lambda: receiver.is_connected)
        sender.publish(RUN_STOP, "run-1")
        await until(lambda: heard == ["run-1"])
        door.cut()
        await until(lambda: not receiver.is_connected)
        sender.publish(RUN_STOP, "lost")
        door.heal()
        await until(lambda: receiver.is_connected)
        sender.publish(RUN_STOP, "run-2")
        await until(lambda: heard == ["run-1", "run-2"])
    finally:
        await sender.close()
        await receiver.close()


async def test_recovery_stops_at_a_hole_and_knows_nothing_of_another_attempt(door, run, settings):
    def entry(position, said, attempt=1):
        return {"a": attempt, "p": position, "d": said}

    with redis.Redis.from_url(settings.REDIS_URL) as client:
        for fields in (entry(9, '"attempt 0"', 0), entry(3, '"abc"'), entry(5, '"de"'), entry(9, '"hi"')):
            client.xadd(stream_of(run.run_id), fields)

    recovered = await asyncio.to_thread(recover, run.run_id, 1)
    assert recovered.text == "abcde"
    with_more = await asyncio.to_thread(recover, run.run_id, 1, text="abcdefg")
    assert with_more.text == "abcdefghi"
    assert await asyncio.to_thread(recover, run.run_id, 1, text="abcdefghi") is None
    assert await asyncio.to_thread(recover, run.run_id, 2) is None
    door.cut()
    with pytest.raises(redis.RedisError):
        await asyncio.to_thread(recover, run.run_id, 1)
