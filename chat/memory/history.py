"""The turns a model is reminded of: from the cache when it has exactly the right ones, else from the database.

The cached copy carries the timeline's seq that it was made at, and the last turn that the summary covers. A reader
knows which ones it needs, so a copy that is stale, or was written by a racing process, is never used: whatever changes
the history, a variant that is chosen too, is an entry of the timeline. Losing the cache costs one query.
"""

from typing import Any

from django.core.cache import cache

from chat.contracts import HistoryMessage, Role, StartedRun
from chat.memory.budget import Turn
from chat.queries import list_answered_turns

# As many turns as one read of the database brings: 1200 messages.
MAX_TURNS = 600
CACHE_SECONDS = 3600


def load_turns(
    *, user_id: int, conversation_id: str, before_turn: int, after_turn: int = 0, history_seq: int = -1
) -> tuple[Turn, ...]:
    """
    Return the answered turns between both, oldest first.

    The cached copy is used when it is exactly the history that the timeline had at `history_seq`.
    """
    if before_turn <= after_turn + 1:
        return ()
    covers = f"{history_seq}:{after_turn}"
    if history_seq >= 0 and (cached := _read(user_id, conversation_id, covers=covers)) is not None:
        return cached
    turns: tuple[Turn, ...] = tuple(
        list_answered_turns(
            user_id=user_id,
            conversation_id=conversation_id,
            before_turn=before_turn,
            after_turn=after_turn,
            limit=MAX_TURNS,
        )
    )
    if history_seq >= 0:
        _write(user_id, conversation_id, covers=covers, turns=turns)
    return turns


def remember_turn(*, run: StartedRun, earlier: tuple[Turn, ...], answer: str, history_seq: int) -> None:
    """
    Put a turn that has just ended behind the earlier ones. An unanswered turn is passed over, as in the database.

    `history_seq` is the timeline's last seq with the turn's end in it; `earlier` are the turns behind the summary.
    """
    turn: Turn = (
        HistoryMessage(role=Role.USER, content=run.message),
        HistoryMessage(role=Role.ASSISTANT, content=answer),
    )
    turns = (*earlier, turn) if answer else earlier
    covers = f"{history_seq}:{run.summary_covers_turn}"
    _write(run.user_id, run.conversation_id, covers=covers, turns=turns[-MAX_TURNS:])


def _key(user_id: int, conversation_id: str) -> str:
    return f"history:u:{user_id}:c:{conversation_id}"


def _read(user_id: int, conversation_id: str, *, covers: str) -> tuple[Turn, ...] | None:
    entry: Any = cache.get(_key(user_id, conversation_id))
    if not isinstance(entry, dict) or entry.get("covers") != covers:
        return None
    return tuple(
        tuple(HistoryMessage(role=Role(role), content=content) for role, content in turn) for turn in entry["turns"]
    )


def _write(user_id: int, conversation_id: str, *, covers: str, turns: tuple[Turn, ...]) -> None:
    plain = [[(message.role.value, message.content) for message in turn] for turn in turns]
    cache.set(_key(user_id, conversation_id), {"covers": covers, "turns": plain}, CACHE_SECONDS)
