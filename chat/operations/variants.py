"""Which of the answers to one question counts: for what the model is reminded of, and for what a page shows first."""

from datetime import datetime

from django.db import transaction

from chat.contracts import Role, TimelineKind
from chat.models import AgentChat, ChatRun
from chat.operations.conversations import lock_own
from chat.operations.timeline import NewEntry, append_timeline
from chat.queries import ConversationNotFound, RunNotFound
from outbox.database_errors import repeat_on_conflict
from smartflow.api.rows import fetch
from smartflow.kernel.errors import Conflict
from smartflow.kernel.text import noop as _


class RunAlreadyLive(Conflict):
    """The conversation's last turn has not ended; `run_id` names it."""

    code = "40910"
    message = _("The assistant is still answering your last message. Wait for it to finish.")


class RunNotRepeatable(Conflict):
    """Only the last answer of a conversation can be made anew."""

    code = "40912"
    message = _("Only the last answer can be made anew.")


class AnswerEmpty(Conflict):
    """An answer that says nothing would take its question out of what the model is reminded of."""

    code = "40914"
    message = _("This answer has no text, so it cannot be chosen.")


def select_variant(*, user_id: int, run_id: str, now: datetime) -> None:
    """
    Make one of the last question's answers the one that counts for what the model is reminded of.

    Transaction: one. Twice: no effect. Raises: RunNotFound; RunNotRepeatable; AnswerEmpty; RunAlreadyLive.
    """

    def select() -> None:
        with transaction.atomic():
            chat, run = lock_last(user_id=user_id, run_id=run_id, not_last=RunNotRepeatable)
            if run.is_current:
                return
            if not run.output_text:
                raise AnswerEmpty
            make_current(run=run)
            payload = {"run_id": run.id, "turn_no": run.turn_no, "variant_no": run.variant_no}
            entry = NewEntry(kind=TimelineKind.VARIANT_SELECTED, role=Role.USER, payload=payload, run_id=run.id)
            append_timeline(chat=chat, entries=[entry], now=now)

    repeat_on_conflict(select)


def make_current(*, run: ChatRun) -> None:
    """Let this answer count and no other of its turn. Transaction: the caller's, which holds the conversation."""
    variants = ChatRun.objects.filter(chat__chat_id=run.chat_id, turn_no=run.turn_no)
    variants.exclude(id=run.id).filter(is_current=True).update(is_current=False)
    variants.filter(id=run.id).update(is_current=True)


def check_quiet(*, chat: AgentChat) -> None:
    """Raise RunAlreadyLive while an answer is under way in the conversation, which the caller holds."""
    live = fetch("SELECT id FROM chat_runs WHERE chat_id = %s AND is_live = 1", chat.chat_id)
    if live is not None:
        raise RunAlreadyLive(run_id=live[0])


def lock_last(*, user_id: int, run_id: str, not_last: type[Conflict]) -> tuple[AgentChat, ChatRun]:
    """Lock the run's conversation and return both; the run must be an answer to the conversation's last question."""
    run = ChatRun.objects.filter(id=run_id, user_id=user_id).first()
    if run is None:
        raise RunNotFound
    try:
        chat = lock_own(user_id=user_id, conversation_id=run.chat_id)
    except ConversationNotFound:
        raise RunNotFound from None
    check_quiet(chat=chat)
    if run.turn_no != chat.turn_count:
        raise not_last
    run.refresh_from_db()
    return chat, run
