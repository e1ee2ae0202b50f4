"""The product as it runs: web, worker with beat and consumer as real processes, spoken to over real HTTP.

`Stack` starts, stops and kills them, embedded or on MariaDB, Redis and Kafka; `Person` is a signed-in user; `Books` is
what the database holds of one user. The fixtures stand in fixtures.py.
"""

from tests.stack.books import Books
from tests.stack.person import Person, Reply
from tests.stack.stack import KINDS, Stack
from tests.stack.waiting import wait_until

__all__ = ["KINDS", "Books", "Person", "Reply", "Stack", "wait_until"]
