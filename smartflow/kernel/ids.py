"""Identifiers that leave the database: random, so that knowing one tells nothing about others."""

import re
import uuid

_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")


def new_uuid() -> str:
    """Return a random UUIDv4 in its canonical, lower-case form of 36 characters."""
    return str(uuid.uuid4())


def is_uuid(text: str) -> bool:
    """Tell whether text is a canonical lower-case UUID."""
    return _UUID.match(text) is not None
