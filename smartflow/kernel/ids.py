"""Identifiers that leave the database: random, so that knowing one tells nothing about others, or made of a name."""

import re
import uuid

# Of named_uuid: another would give what exists another name.
_NAMESPACE = uuid.UUID("5f2c8f0e-4b0a-4c55-9d0c-0b6f3c1f7a52")
_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")


def new_uuid() -> str:
    """Return a random UUIDv4 in its canonical, lower-case form of 36 characters."""
    return str(uuid.uuid4())


def named_uuid(name: str) -> str:
    """Return the UUIDv5 of a name, always the same one."""
    return str(uuid.uuid5(_NAMESPACE, name))


def is_uuid(text: str) -> bool:
    """Tell whether text is a canonical lower-case UUID."""
    return _UUID.match(text) is not None
