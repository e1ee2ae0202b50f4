"""How a message travels. settings.OUTBOX_TRANSPORT names the class; each process makes its own, after any fork."""

import os
import threading

from django.conf import settings
from django.utils.module_loading import import_string

from outbox.transports.base import (
    Delivery,
    Headers,
    OutgoingMessage,
    PartitionPosition,
    PublishedRow,
    PublishFailure,
    PublishResult,
    TopicShape,
    Transport,
    TransportConsumer,
    TransportUnavailable,
)

_transports: dict[int, Transport] = {}
_lock = threading.Lock()


def get_transport() -> Transport:
    """Return this process's transport. A producer made before a fork would hang in the child, hence one per pid."""
    with _lock:
        pid = os.getpid()
        if pid not in _transports:
            _transports[pid] = import_string(settings.OUTBOX_TRANSPORT)()
        return _transports[pid]


def is_transport_made() -> bool:
    """Tell whether this process has its transport already."""
    return os.getpid() in _transports


__all__ = [
    "Delivery",
    "Headers",
    "OutgoingMessage",
    "PartitionPosition",
    "PublishFailure",
    "PublishResult",
    "PublishedRow",
    "TopicShape",
    "Transport",
    "TransportConsumer",
    "TransportUnavailable",
    "get_transport",
    "is_transport_made",
]
