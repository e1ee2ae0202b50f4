"""An open stream holds no thread and no database connection, however many there are."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from smartflow.api.database_threads import THREADS
from tests.stack import wait_until

STREAMS = 40


def thread_count(stack):
    status = Path(f"/proc/{stack.processes['web'].pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:"))


def connection_count(stack):
    """Connections of the web process to its database: sockets to MariaDB's door, or open files of SQLite."""
    if stack.kind == "services":
        rows = stack.rows("SELECT count(*) AS n FROM information_schema.processlist WHERE db = ?", stack.parts.name)
        return rows[0]["n"]
    links = [link.resolve().name for link in Path(f"/proc/{stack.processes['web'].pid}/fd").iterdir()]
    return links.count("smartflow.sqlite3")


def test_open_streams_hold_neither_threads_nor_connections(stack):
    people = [stack.invite() for _ in range(4)]
    for person in people:
        person.chat("Warm up [[tokens=1]]")
    threads, connections = thread_count(stack), connection_count(stack)

    with ThreadPoolExecutor(STREAMS) as pool:
        long = [pool.submit(people[number % 4].chat, "[[tokens=60 delay_ms=100]]") for number in range(STREAMS)]
        wait_until(lambda: stack.model.open_count() == STREAMS, 20, f"{STREAMS} open streams")
        during = thread_count(stack), connection_count(stack)
        replies = [future.result() for future in long]

    for reply in replies:
        reply.assert_whole()
    # The pool of database threads may have grown to its full size meanwhile, and no further.
    assert during[0] <= threads + THREADS
    assert during[1] <= connections + THREADS
