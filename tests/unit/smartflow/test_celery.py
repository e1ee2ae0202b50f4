"""What the Celery application changes in the library."""

from types import SimpleNamespace

from kombu.transport.redis import QoS

import smartflow.celery


class LostChannel(SimpleNamespace):
    """A channel of a connection that is closed already."""

    do_restore = True

    def conn_or_acquire(self, client=None):
        raise AttributeError("'NoneType' object has no attribute 'hostname'")


def test_a_worker_that_has_lost_redis_puts_no_job_back_through_the_lost_connection():
    assert smartflow.celery.RedisQoS is QoS
    waiting = QoS(LostChannel())
    waiting._delivered["tag"] = object()
    waiting.restore_unacked_once()
    assert list(waiting._delivered) == ["tag"]
