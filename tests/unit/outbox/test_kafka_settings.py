"""outbox/transports/kafka_settings.py: a broker that is away does not fill the log."""

import logging

from outbox.transports.kafka_settings import Seldom, librdkafka_logger


class Seconds:
    now = 5.0

    def __call__(self):
        return self.now


def complaint(kind):
    arguments = (kind, "smartflow#consumer-1", "Connect to ipv4#127.0.0.1:9092 failed")
    return logging.LogRecord("librdkafka", logging.ERROR, __file__, 1, "%s [%s] %s", arguments, None)


def test_seldom_lets_each_kind_of_complaint_through_once_a_minute():
    seconds = Seconds()
    seldom = Seldom(monotonic=seconds)

    assert [seldom.filter(complaint("FAIL")) for _ in range(3)] == [True, False, False]
    assert seldom.filter(complaint("SESSTMOUT"))
    seconds.now += 60
    assert [seldom.filter(complaint("FAIL")) for _ in range(2)] == [True, False]


def test_librdkafka_complains_seldom():
    assert any(isinstance(one, Seldom) for one in librdkafka_logger.filters)
