"""The transport without a broker keeps the promises of every transport."""

import pytest
from django.db import DatabaseError

from outbox.models import LocalMessage
from outbox.testing.contract import TransportContract, outgoing, receive, texts
from outbox.transports.local import LocalTransport


@pytest.mark.django_db(transaction=True)
class TestLocalTransport(TransportContract):
    @pytest.fixture
    def transport(self):
        return LocalTransport()

    def test_publish_reports_every_message_and_keeps_none_when_the_database_fails(self, transport, monkeypatch):
        def fail(*_args, **_kwargs):
            raise DatabaseError("disk full")

        monkeypatch.setattr(LocalMessage.objects, "bulk_create", fail)
        messages = [outgoing("one"), outgoing("two")]

        failures = transport.publish(messages, timeout_seconds=1).failures

        assert set(failures) == {message.outbox_id for message in messages}
        assert not any(failure.is_permanent for failure in failures.values())

    def test_acknowledged_messages_leave_the_table(self, transport, open_consumer):
        self.publish(transport, outgoing("one"), outgoing("two"))
        consumer = open_consumer()
        consumer.acknowledge(receive(consumer, wanted=2)[:1])

        assert list(LocalMessage.objects.values_list("value", flat=True)) == ["two"]

    def test_two_consumers_may_see_the_same_message(self, transport, open_consumer):
        self.publish(transport, outgoing("one"))

        assert texts(receive(open_consumer(), wanted=1)) == texts(receive(open_consumer(), wanted=1)) == ["one"]
