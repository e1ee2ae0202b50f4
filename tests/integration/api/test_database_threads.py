"""The threads between raw ASGI code and the database."""

import asyncio
import threading

import pytest
from django.db import connections

from smartflow.accounts.models import User
from smartflow.api.database_threads import DatabaseThreads, looking_threads

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE_SECONDS = 10


@pytest.fixture
def threads():
    made = []

    def make(**options):
        made.append(DatabaseThreads(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def until(condition):
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def use_connection():
    """Run a query and return the connection of this thread."""
    User.objects.exists()
    return connections["default"]


async def test_run_gives_the_connection_back_when_there_is_nothing_to_do(threads):
    database = threads(threads=1, idle_seconds=0.05)
    used = await database.run(use_connection)

    await until(lambda: used.connection is None)

    assert (await database.run(use_connection)) is used
    assert used.connection is not None


async def test_run_keeps_the_connection_while_there_is_something_to_do(threads):
    database = threads(threads=1, idle_seconds=PATIENCE_SECONDS)

    first, second = [await database.run(lambda: use_connection().connection) for _ in range(2)]

    assert first is second


async def test_looking_threads_hold_no_connection_between_two_looks():
    looks = looking_threads()

    for _ in range(2):
        used = await looks.run(use_connection)
        await until(lambda used=used: used.connection is None)

    looks.close()


async def test_looking_threads_let_no_look_wait_for_two_others():
    looks = looking_threads()
    busy = threading.Barrier(3, timeout=PATIENCE_SECONDS)

    await asyncio.gather(*(looks.run(busy.wait) for _ in range(3)))

    looks.close()


async def test_run_takes_the_thread_that_was_used_last(threads):
    database = threads(threads=2)
    busy = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    calls = [asyncio.ensure_future(database.run(busy.wait)) for _ in range(2)]
    await until(lambda: busy.n_waiting == 2)
    busy.wait()
    await asyncio.gather(*calls)
    await until(lambda: len(database._free) == 2)

    used = set()
    for _ in range(4):
        used.add(await database.run(threading.current_thread))
        await until(lambda: len(database._free) == 2)

    assert len(used) == 1


async def test_run_starts_threads_as_they_are_needed_and_no_more_than_it_may(threads):
    database = threads(threads=3)
    before = set(threading.enumerate())
    busy = threading.Barrier(4, timeout=PATIENCE_SECONDS)

    calls = [asyncio.ensure_future(database.run(busy.wait)) for _ in range(3)]
    await until(lambda: busy.n_waiting == 3)
    waiting = asyncio.ensure_future(database.run(threading.current_thread))
    await asyncio.sleep(0)
    started = set(threading.enumerate()) - before
    busy.wait()
    await asyncio.gather(*calls)

    assert len(started) == 3
    assert await waiting in started


async def test_run_raises_what_the_function_raises(threads):
    database = threads(threads=1)

    with pytest.raises(User.DoesNotExist):
        await database.run(User.objects.get, username="nobody")
    assert not await database.run(User.objects.exists)


async def test_run_leaves_out_a_call_that_was_cancelled_before_its_turn(threads):
    database = threads(threads=1)
    busy = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    called = []

    first = asyncio.ensure_future(database.run(busy.wait))
    await until(lambda: busy.n_waiting == 1)
    second = asyncio.ensure_future(database.run(called.append, "second"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    busy.wait()
    await first
    await database.run(called.append, "third")

    assert called == ["third"]


async def test_close_ends_the_threads_with_their_connections(threads):
    database = threads(threads=2)
    used = await database.run(use_connection)

    database.close()

    assert used.connection is None
    with pytest.raises(RuntimeError):
        await database.run(use_connection)
