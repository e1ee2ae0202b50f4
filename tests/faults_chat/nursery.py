"""Bears web processes and executors, too; see tests/faults/nursery.py."""

import importlib
import json
from pathlib import Path

from tests.faults import nursery

READY = {
    "celery": " ready.",
    "consumer": "Consuming events.",
    "web": "Uvicorn running on",
    "executor": "Executing runs",
}
PRELOADED = (
    "MySQLdb",
    "celery.apps.worker",
    "celery.beat",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "chat.api.views",
    "chat.llm.openai_factory",
    "chat.management.commands.run_executor",
    "django_redis.cache",
    "httptools",
    "kombu.transport.redis",
    "openai.resources.chat",
    "outbox.management.commands.consume_events",
    "outbox.transports.kafka",
    "redis.asyncio",
    "smartflow.streams",
    "smartflow.urls",
    "tests.factories",
    "uvicorn",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)


def run_web(port: str, mode: str) -> None:
    """As scripts/run.py starts it."""
    import uvicorn
    from django.conf import settings

    settings.CHAT_EXECUTORS = mode
    uvicorn.run(
        "smartflow.asgi:application",
        host="127.0.0.1",
        port=int(port),
        access_log=False,
        timeout_graceful_shutdown=3,
    )


def run_executor() -> None:
    """As `manage.py run_executor`."""
    from django.conf import settings

    settings.CHAT_EXECUTORS = "separate"
    nursery.run_manage("run_executor")


def sign_people_in(prefix: str, count: str, place: str) -> None:
    """Make users, each with a token that outlives the campaign, and write them down."""
    from datetime import timedelta

    from django.conf import settings
    from django.db import transaction

    from tests.factories import make_user, sign_in

    # the product's hasher is slow on purpose
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.ACCESS_TOKEN_LIFETIME = timedelta(days=2)
    people = []
    with transaction.atomic():
        for number in range(int(count)):
            user = make_user(f"{prefix}-{number}")
            people.append([user.username, user.pk, sign_in(user).access_token])
    done = Path(place)
    done.with_suffix(".part").write_text(json.dumps(people))
    done.with_suffix(".part").rename(done)


def main() -> None:
    """Serve orders until the driver is gone."""
    nursery.ROLES |= {"web": run_web, "executor": run_executor, "people": sign_people_in}
    nursery.PRELOADED = tuple(name for name in PRELOADED if _exists(name))
    nursery.main()


def _exists(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    main()
