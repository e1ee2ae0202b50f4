"""Tests in several processes (pytest -n): each has a Redis database of its own.

pytest-django tells the databases of the workers apart; topics, groups and channels are named by chance.
"""

import os
from urllib.parse import urlsplit

from django.conf import settings

# 0 and 1 are for hand work, those between for stacks; Redis has 16.
FIRST_REDIS_NUMBER = 12
MOST_WORKERS = 4


def take_own_redis() -> None:
    """Point this process, and what it starts, at its worker's Redis database. Before the first use of a cache."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or not settings.REDIS_URL:
        return
    number = int(worker.removeprefix("gw"))
    if number >= MOST_WORKERS:
        raise RuntimeError(f"Redis has room for {MOST_WORKERS} workers: pytest -n {MOST_WORKERS}")
    url = urlsplit(settings.REDIS_URL)._replace(path=f"/{FIRST_REDIS_NUMBER + number}").geturl()
    os.environ["REDIS_URL"] = settings.REDIS_URL = settings.CACHES["default"]["LOCATION"] = url
