"""The conversation itself: its row, its lock, and what its owner may change of it."""

from collections.abc import Collection
from datetime import datetime

from django.db import connection, transaction
from django.db.models import QuerySet

from chat.contracts import ChatStatus
from chat.models import AgentChat
from chat.queries import ConversationNotFound
from outbox.database_errors import repeat_on_conflict
from smartflow.api.rows import RowReader, fetch
from smartflow.kernel.errors import Invalid
from smartflow.kernel.text import noop as _

TITLE_MAX_CHARACTERS = 255
_FIND_KEY = "SELECT id FROM agent_chats WHERE chat_id = %s"
_LOCKED = RowReader(AgentChat, "id = %s", is_locking=True)


class ConversationTitleInvalid(Invalid):
    """The title is blank or too long."""

    code = "40005"
    message = _("Give a title of 1 to 255 characters.")


def change_conversation(
    *, user_id: int, conversation_id: str, title: str | None = None, status: ChatStatus | None = None
) -> None:
    """
    Give a conversation a title of the user's own, archive it or bring it back; None leaves a value as it is.

    Transaction: one. Twice: no effect. Raises: ConversationNotFound, ConversationTitleInvalid.
    """
    values: dict[str, object] = {}
    if title is not None:
        values["title"] = title = title.strip()
        values["title_due_at"] = None
        if not 1 <= len(title) <= TITLE_MAX_CHARACTERS:
            raise ConversationTitleInvalid(fields={"title": ConversationTitleInvalid.message})
    if status is not None:
        values["status"] = status
    _update_own(user_id, conversation_id, **values)


def delete_conversation(*, user_id: int, conversation_id: str, now: datetime) -> None:
    """
    Hide a conversation from its owner for good; the rows stay, because the ledgers add up over them.

    A run that is under way ends as usual, unseen. Raises: ConversationNotFound, also the second time.
    """
    _update_own(user_id, conversation_id, deleted_at=now, title_due_at=None)


def lock_own(*, user_id: int, conversation_id: str) -> AgentChat:
    """Lock the user's conversation for the caller's transaction. Raises: ConversationNotFound."""
    chat = lock_conversation(conversation_id=conversation_id)
    if chat is None or chat.user_id != user_id or chat.deleted_at is not None:
        raise ConversationNotFound
    return chat


def lock_conversation(*, conversation_id: str) -> AgentChat | None:
    """
    Lock the conversation's row, deleted or not, for the caller's transaction; None without such a conversation.

    By primary key only. A lock through the unique key holds that index too, which the foreign keys of runs and messages
    look into: on MariaDB a turn that waited for the row then met a consumer that was about to insert.
    """
    key = fetch(_FIND_KEY, conversation_id)
    return None if key is None else _LOCKED.find(*key)


def lock_conversation_keys(*, conversation_ids: Collection[str]) -> dict[str, int]:
    """Lock many in the order of their primary keys and return these: the other values would cost more than the lock."""
    return dict(_locked(conversation_ids).values_list("chat_id", "pk"))


def _locked(conversation_ids: Collection[str]) -> QuerySet[AgentChat]:
    ids = list(AgentChat.objects.filter(chat_id__in=conversation_ids).order_by().values_list("pk", flat=True))
    chats = AgentChat.objects.filter(pk__in=ids).order_by("pk")
    return chats.select_for_update() if connection.features.has_select_for_update else chats


def _update_own(user_id: int, conversation_id: str, **values: object) -> None:
    def update() -> None:
        with transaction.atomic():
            # First the row, then the change by its primary key: an UPDATE by user and chat_id may go through an index
            # of the user's, and then deadlocks with a writer that moves the row within that index.
            chat = lock_own(user_id=user_id, conversation_id=conversation_id)
            AgentChat.objects.filter(pk=chat.pk).update(**values)

    repeat_on_conflict(update)
