"""faststream-outbox: writer and a subscriber that does nothing. Run by bench/peers/measure.py; prints JSON."""

import argparse
import asyncio
import json
import os
import signal
import time
import uuid

from faststream import FastStream
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

URL = "postgresql+asyncpg://{PEER_USER}@127.0.0.1:{PEER_PORT}/{PEER_DATABASE}".format_map(os.environ)
TEXT = "x" * (int(os.environ["PEER_BYTES"]) - 80)
WRITERS = 4

metadata = MetaData()
table = make_outbox_table(metadata, table_name="outbox")
engine = create_async_engine(URL, pool_size=10)
broker = OutboxBroker(engine, outbox_table=table, logger=None)
sessions = async_sessionmaker(engine, expire_on_commit=False)


def body(key: str) -> dict[str, str]:
    """Return one message, 1 KB as stored."""
    return {"key": key, "message": TEXT}


async def backlog(count: int) -> None:
    """Write many, 100 to a transaction."""
    await broker.start()
    for first in range(0, count, 100):
        async with sessions() as session, session.begin():
            bodies = [body(str(uuid.uuid4())) for _ in range(first, min(count, first + 100))]
            await broker.publish_batch(*bodies, queue="peer", session=session)


async def steady(rate: int, seconds: int) -> dict[str, float]:
    """Write one a transaction at a fixed rate; return each one's moment of commit."""
    await broker.start()
    commits: dict[str, float] = {}
    start = time.time() + 0.2

    async def write(mine: int) -> None:
        for number in range(mine, rate * seconds, WRITERS):
            key = str(uuid.uuid4())
            await asyncio.sleep(max(0.0, start + number / rate - time.time()))
            async with sessions() as session, session.begin():
                await broker.publish(body(key), queue="peer", session=session)
            commits[key] = time.time()

    await asyncio.gather(*(write(number) for number in range(WRITERS)))
    return commits


async def relay(options: dict[str, object]) -> dict[str, float]:
    """Handle until SIGTERM; return the moment each message reached the handler."""
    handled: dict[str, float] = {}

    @broker.subscriber("peer", **options)
    async def handle(message: dict[str, str]) -> None:
        handled[message["key"]] = time.time()

    app = FastStream(broker, logger=None)
    print("ready", flush=True)
    await app.run()
    return handled


async def create() -> None:
    """Make the table."""
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("migrate", "backlog", "steady", "relay"))
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--options", type=json.loads, default={})
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.part == "migrate":
        asyncio.run(create())
    elif options.part == "backlog":
        asyncio.run(backlog(options.count))
    elif options.part == "steady":
        print(json.dumps(asyncio.run(steady(options.rate, options.seconds))))
    else:
        print(json.dumps(asyncio.run(relay(options.options))))


if __name__ == "__main__":
    main()
