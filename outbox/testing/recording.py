"""A transport that keeps what it is given, for tests of whatever publishes."""

from collections.abc import Callable, Sequence

from outbox.transports import OutgoingMessage, PublishedRow, PublishFailure, PublishResult, TransportUnavailable


class RecordingTransport:
    """Acknowledges every message, unless `failures` names its row; `during_publish` runs before the answer."""

    keeps_positions = True

    def __init__(self) -> None:
        self.published: list[OutgoingMessage] = []
        self.failures: dict[int, PublishFailure] = {}
        self.during_publish: Callable[[], None] = lambda: None
        self.is_away = False
        self.lost: set[int] = set()

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout_seconds: float) -> PublishResult:
        """Keep the messages, each at a place of its own."""
        sent = [message for message in messages if message.outbox_id not in self.failures]
        positions = {message.outbox_id: (0, len(self.published) + number) for number, message in enumerate(sent)}
        self.published.extend(sent)
        self.during_publish()
        failed = {m.outbox_id: self.failures[m.outbox_id] for m in messages if m.outbox_id in self.failures}
        return PublishResult(failures=failed, positions=positions)

    def check(self, *, timeout_seconds: float = 1.0) -> None:
        """Raise TransportUnavailable while `is_away`."""
        if self.is_away:
            raise TransportUnavailable("away")

    def passed_over(self, rows: Sequence[PublishedRow]) -> set[int]:
        """Return those of the rows that the test names in `lost`."""
        return {row.outbox_id for row in rows} & self.lost

    @property
    def ids(self) -> list[int]:
        """The rows whose messages were published, in the order of publishing."""
        return [message.outbox_id for message in self.published]
