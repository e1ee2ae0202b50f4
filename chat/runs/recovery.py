"""What dead owners of runs had said: Redis may know more of it than the database."""

import logging
from types import TracebackType

import redis
from django.conf import settings

from chat.operations import RecoveredText, WaitingRun
from chat.queries import list_followed_runs
from chat.runs.hints import ANSWER_SECONDS, CONNECT_SECONDS
from chat.runs.redis_log import recover_output

logger = logging.getLogger(__name__)


class Recovery:
    """
    Asks for many runs, from one thread; a context manager.

    Over one connection, and no more once Redis has not answered: each silence would cost all runs behind it their time.
    """

    def __enter__(self) -> "Recovery":
        self._client = (
            redis.Redis.from_url(
                settings.REDIS_URL, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=ANSWER_SECONDS
            )
            if settings.REDIS_URL
            else None
        )
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._close()

    def of(self, waiting: WaitingRun) -> RecoveredText | None:
        """Return what the run's dead owner had said, when more of it is known than the row has."""
        if self._client is None:
            return None
        for run in list_followed_runs(run_ids=[waiting.run_id]):
            try:
                return recover_output(run.run_id, run.attempt, client=self._client, text=run.text, events=run.events)
            except redis.RedisError:
                logger.info("Redis could not be asked what dead runs had said", extra={"run_id": waiting.run_id})
                self._close()
        return None

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
