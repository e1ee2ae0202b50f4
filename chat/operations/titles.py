"""Titles that the assistant makes: which conversations want one, and how one is saved and paid for, once."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from chat.models import AgentChat, ChatRun
from chat.operations.conversations import lock_conversation
from outbox.append import append_event
from outbox.database_errors import repeat_on_conflict
from smartflow.accounts.contracts import ModelCall
from smartflow.accounts.quota import charge_tokens
from smartflow.events import ChatTokenUsageAdjustRequested

# What a title's calls of a model are for, in the ledger.
PURPOSE = "title"
MOST_ATTEMPTS = 3
# How long a job has for one title before another may try, and how much longer each time. Less than a job takes, and
# two ask for the same title; more, and the title of a job that died comes later.
CLAIM_SECONDS = 20.0
CLAIM_GROWTH = 4


@dataclass(frozen=True, kw_only=True)
class UntitledConversation:
    """A conversation that a job may give a title; `attempt` is its fence."""

    conversation_id: str
    user_id: int
    attempt: int


def claim_titles(*, now: datetime, limit: int) -> list[UntitledConversation]:
    """
    Take conversations that want a title, for CLAIM_SECONDS; four times as long at the next attempt.

    Transaction: a guarded UPDATE each, so of two jobs one gets a conversation. At most MOST_ATTEMPTS for each, then
                 it stays without.
    """
    due = AgentChat.objects.filter(title_due_at__lte=now).order_by("title_due_at", "id")[:limit]
    claimed = []
    for chat in due:
        attempt = chat.title_attempts + 1
        is_last = attempt >= MOST_ATTEMPTS
        again_at = now + timedelta(seconds=CLAIM_SECONDS * CLAIM_GROWTH**chat.title_attempts)
        taken = AgentChat.objects.filter(pk=chat.pk, title_due_at=chat.title_due_at).update(
            title_due_at=None if is_last else again_at, title_attempts=attempt
        )
        if taken:
            claimed.append(UntitledConversation(conversation_id=chat.chat_id, user_id=chat.user_id, attempt=attempt))
    return claimed


def save_title(*, conversation: UntitledConversation, title: str, calls: tuple[ModelCall, ...], now: datetime) -> bool:
    """
    Give a conversation its title, unless the user has given one, and charge the call; tell whether it was set.

    Transaction: one; the event that carries the tokens to the ledgers is part of it. An empty title only charges.
    Twice:       raises IntegrityError and changes nothing: the event's id is the call's, so a call is charged once.
    """

    def save() -> bool:
        with transaction.atomic():
            chat = lock_conversation(conversation_id=conversation.conversation_id)
            if chat is None:
                return False
            is_wanted = bool(title) and not (chat.title or "").strip()
            if is_wanted:
                AgentChat.objects.filter(pk=chat.pk).update(title=title, title_due_at=None)
            for call in calls:
                _charge(chat, call, now)
        return is_wanted

    return repeat_on_conflict(save)


def _charge(chat: AgentChat, call: ModelCall, now: datetime) -> None:
    charge_tokens(user_id=chat.user_id, hold_id=call.call_id, tokens=call.total_tokens, now=now)
    # a run whose answer has a row of the history, or is about to
    answered = ChatRun.objects.filter(
        Q(total_tokens__gt=0) | ~Q(output_text=""), chat__chat_id=chat.chat_id, is_live=None
    )
    first_run = answered.order_by("turn_no", "variant_no")
    append_event(
        event=ChatTokenUsageAdjustRequested(
            user_id=chat.user_id,
            conversation_id=chat.chat_id,
            run_id=first_run.values_list("id", flat=True).first() or "",
            tokens_delta=call.total_tokens,
            reason=call.purpose,
            triggered_at=now.isoformat(),
            call=asdict(call),
        ),
        key=chat.chat_id,
        event_id=call.call_id,
        now=now,
    )
