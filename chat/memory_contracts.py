"""What of the long-term memory may leave the chat app: plain values, no Django."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from tasks.contracts import UNSET, Unset

TITLE_MAX_CHARACTERS = 255
CONTENT_MAX_CHARACTERS = 2000
REASON_MAX_CHARACTERS = 255
# Of the ids that are noted down as they were given: assistant_id and run_id.
SOURCE_MAX_CHARACTERS = 64
HIGHEST_SENSITIVITY = 2


class MemoryType(StrEnum):
    """What an item is about."""

    PREFERENCE = "preference"  # what the user likes
    CONSTRAINT = "constraint"  # what must be kept
    FACT = "fact"  # what is so


class MemoryStatus(StrEnum):
    """An item's states; only active ones are for the assistant."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DELETED = "deleted"


class AuthorKind(StrEnum):
    """Who changed something."""

    USER = "user"
    SYSTEM = "system"  # the assistant
    ADMIN = "admin"


class AuditAction(StrEnum):
    """What was done."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RESTORE = "restore"
    SETTINGS = "settings"


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who does it, and why, for the audit; the system has no id."""

    kind: AuthorKind
    id: int | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class NewMemory:
    """An item to be added. Without a conversation it is global."""

    memory_type: str
    title: str
    content: str
    conversation_id: str | None = None
    assistant_id: str | None = None
    run_id: str | None = None
    confidence: float = 0.95
    importance: float = 0.90
    sensitivity_level: int = 0
    is_explicit: bool = True
    ttl_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryChange:
    """What to change of an item. Unset leaves a value as it is, None clears it."""

    memory_type: str | Unset = UNSET
    title: str | Unset = UNSET
    content: str | Unset = UNSET
    conversation_id: str | Unset | None = UNSET
    assistant_id: str | Unset | None = UNSET
    run_id: str | Unset | None = UNSET
    confidence: float | Unset = UNSET
    importance: float | Unset = UNSET
    sensitivity_level: int | Unset = UNSET
    is_explicit: bool | Unset = UNSET
    ttl_at: datetime | Unset | None = UNSET

    def values(self) -> dict[str, Any]:
        """Return what was given, by the column's name."""
        return {name: value for name, value in vars(self).items() if value is not UNSET}


@dataclass(frozen=True, kw_only=True)
class MemoryView:
    """One item as its owner sees it."""

    id: int
    user_id: int
    conversation_id: str | None
    assistant_id: str | None
    run_id: str | None
    memory_type: str
    title: str
    content: str
    content_hash: str
    confidence: float
    importance: float
    sensitivity_level: int
    is_explicit: bool
    status: str
    ttl_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class MemoryFilter:
    """Which of a user's items to show; with a conversation its own and the global ones. No type means every type."""

    conversation_id: str = ""
    statuses: Sequence[str] = (MemoryStatus.ACTIVE, MemoryStatus.ARCHIVED)
    memory_types: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class MemoryPage:
    """One page of items; `next_cursor` is "" on the last one."""

    items: Sequence[MemoryView]
    next_cursor: str = ""


@dataclass(frozen=True, kw_only=True)
class MemorySwitches:
    """What the assistant may remember by itself, as the user set it."""

    memory_enabled: bool = True
    implicit_memory_enabled: bool = True  # what the user did not say in so many words
    sensitive_memory_enabled: bool = False


@dataclass(frozen=True, kw_only=True)
class SwitchesChange:
    """Which switches to turn; unset leaves one as it is."""

    memory_enabled: bool | Unset = UNSET
    implicit_memory_enabled: bool | Unset = UNSET
    sensitive_memory_enabled: bool | Unset = UNSET

    def values(self) -> dict[str, bool]:
        """Return what was given, by the column's name."""
        return {name: bool(value) for name, value in vars(self).items() if value is not UNSET}
