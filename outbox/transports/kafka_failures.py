"""Which of a broker's refusals pass, by the names that librdkafka gives them. Pure."""

from outbox.transports.base import PublishFailure

_PERMANENT = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD"})
_OF_TOPIC = frozenset({"TOPIC_EXCEPTION", "TOPIC_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})


def failure_of(name: str) -> PublishFailure:
    """Return what the refusal means for the message."""
    return PublishFailure(reason=name, is_permanent=name in _PERMANENT, is_of_topic=name in _OF_TOPIC)
