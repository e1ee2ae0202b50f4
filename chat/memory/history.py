"""The turns a model is reminded of: from the cache when it has exactly the right ones, else from the database.

The cached copy carries the number of the last turn it covers. A reader knows which number it needs, so a copy that is
stale, or was written by a racing process, is never used. Losing the cache costs one query.
"""

from typing import Any

from django.core.cache import cache

from chat.contracts import HistoryMessage, Role
from chat.memory.budget import Turn
from chat.queries import list_answered_turns

# As many turns as one read of the database brings: 1200 messages.
MAX_TURNS = 600
CACHE_SECONDS = 3600


def load_turns(*, user_id: int, conversation_id: str, before_turn: int) -> tuple[Turn, ...]:
    """Return the answered turns before `before_turn`, oldest first."""
    if before_turn <= 1:
        return ()
    cached = _read(user_id, conversation_id, covers=before_turn - 1)
    if cached is not None:
        return cached
    turns: tuple[Turn, ...] = tuple(
        list_answered_turns(user_id=user_id, conversation_id=conversation_id, before_turn=before_turn, limit=MAX_TURNS)
    )
    _write(user_id, conversation_id, covers=before_turn - 1, turns=turns)
    return turns


def remember_turn(
    *, user_id: int, conversation_id: str, turn_no: int, earlier: tuple[Turn, ...], question: str, answer: str
) -> None:
    """Put a turn that has just ended behind the earlier ones. An unanswered turn is passed over, as in the database."""
    turn: Turn = (
        HistoryMessage(role=Role.USER, content=question),
        HistoryMessage(role=Role.ASSISTANT, content=answer),
    )
    turns = (*earlier, turn) if answer else earlier
    _write(user_id, conversation_id, covers=turn_no, turns=turns[-MAX_TURNS:])


def _key(user_id: int, conversation_id: str) -> str:
    return f"history:u:{user_id}:c:{conversation_id}"


def _read(user_id: int, conversation_id: str, *, covers: int) -> tuple[Turn, ...] | None:
    entry: Any = cache.get(_key(user_id, conversation_id))
    if not isinstance(entry, dict) or entry.get("covers") != covers:
        return None
    return tuple(
        tuple(HistoryMessage(role=Role(role), content=content) for role, content in turn) for turn in entry["turns"]
    )


def _write(user_id: int, conversation_id: str, *, covers: int, turns: tuple[Turn, ...]) -> None:
    plain = [[(message.role.value, message.content) for message in turn] for turn in turns]
    cache.set(_key(user_id, conversation_id), {"covers": covers, "turns": plain}, CACHE_SECONDS)
