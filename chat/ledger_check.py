"""Compares every sum of tokens with the ledger, and mends what differs. Called by a command and by a nightly job.

Consumers go on meanwhile. Whatever looks wrong at first is looked at again with its conversation locked: they lock it
too before they write, so a difference that is reported was there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet, Sum

from chat.contracts import Role
from chat.models import AgentChat, ChatHistory, ChatRun
from chat.operations.conversations import lock_conversation
from chat.operations.messages import answer_event_id
from chat.operations.titles import PURPOSE as TITLE
from outbox.queries import list_under_way
from smartflow.accounts import ledger
from smartflow.accounts.contracts import ComparedRows, SumDifference

# Rows of one step. Larger: fewer statements, each longer.
CONVERSATIONS_AT_ONCE = 500
MESSAGES_AT_ONCE = 1000
RUNS_AT_ONCE = 500

CHATS, HISTORIES, RUNS = AgentChat._meta.db_table, ChatHistory._meta.db_table, ChatRun._meta.db_table
HOLDS = "token_holds"
_MESSAGE = ("id", "chat_id", "role", "run_id", "tokens_consumed")

Row = TypeVar("Row", bound=Model)
Progress = Callable[[str, int | str], None]


@dataclass(frozen=True, kw_only=True)
class LedgerDifference:
    """A sum that is not what the ledger says. `whose` names its user, its conversation or its run."""

    table: str
    id: int | str
    column: str
    whose: str
    stored: int
    computed: int
    is_mended: bool = False


def check_ledger(
    *, user_id: int | None = None, is_repairing: bool = False, on_progress: Progress = lambda _what, _id: None
) -> Iterator[LedgerDifference]:
    """
    Compare all sums, or one user's, and yield what differs; with `is_repairing`, after it was mended.

    Transaction: none across steps; a conversation, a user or a window is locked for the moment it is looked at again.
    Order:       conversations and their messages, runs and what was charged for them, users, windows; each by primary
                 key.
    Shape:       a message that the ledger knows and the history lacks is reported with id 0 and cannot be mended; nor
                 can a run that the ledger does not know at all: its event is dead or lost, and was not paid twice.
    Twice:       safe, also at once; a second repair finds nothing.
    """
    suspects = _suspects(user_id, on_progress)
    checked: set[str] = set()
    for conversation_id in suspects:
        if conversation_id not in checked:
            checked.add(conversation_id)
            yield from _check_conversation(conversation_id, is_repairing)
    yield from _check_runs(user_id, is_repairing, on_progress)
    for difference in chain(_compare_users(user_id, on_progress), _compare_windows(user_id, on_progress)):
        if not is_repairing:
            yield _of_account(difference, is_mended=False)
            continue
        is_user = difference.table == "users"
        mended = ledger.repair_user(user_id=difference.id) if is_user else ledger.repair_window(window_id=difference.id)
        for one in mended:  # a window's columns are mended together, and then no more
            yield _of_account(one, is_mended=True)


def _suspects(user_id: int | None, on_progress: Progress) -> Iterator[str]:
    """Yield conversations in which something seems to differ; traffic may make one seem so."""
    yield from _conversations_in_doubt(user_id, on_progress)
    yield from _messages_in_doubt(user_id, on_progress)


def _conversations_in_doubt(user_id: int | None, on_progress: Progress) -> Iterator[str]:
    last_id = 0
    while chats := list(
        _of_user(AgentChat.objects.all(), user_id)
        .filter(pk__gt=last_id)
        .order_by("pk")
        .values_list("pk", "chat_id", "tokens_total")[:CONVERSATIONS_AT_ONCE]
    ):
        last_id = chats[-1][0]
        ids = [chat_id for _pk, chat_id, _total in chats]
        computed = ledger.sum_tokens_of_conversations(conversation_ids=ids)
        written = dict(
            ChatHistory.objects.filter(chat__chat_id__in=ids)
            .order_by()
            .values_list("chat__chat_id")
            .annotate(tokens=Sum("tokens_consumed"))
        )
        for _pk, chat_id, total in chats:
            if not total == computed[chat_id] == written.get(chat_id, 0):
                yield chat_id
        on_progress("agent_chats", last_id)


def _messages_in_doubt(user_id: int | None, on_progress: Progress) -> Iterator[str]:
    """Yield where single messages differ, which may add up to the right total."""
    last_id = 0
    while messages := list(
        _of_user(ChatHistory.objects.all(), user_id)
        .filter(pk__gt=last_id)
        .order_by("pk")
        .only(*_MESSAGE)[:MESSAGES_AT_ONCE]
    ):
        last_id = messages[-1].pk
        for message, computed in _computed(messages):
            if message.tokens_consumed != computed:
                yield message.chat_id
        on_progress("chat_histories", last_id)


def _computed(messages: list[ChatHistory]) -> Iterator[tuple[ChatHistory, int]]:
    """Yield each message with its tokens by rule B: all of a run's belong to its answer."""
    runs = {message.run_id for message in messages if message.role == Role.ASSISTANT}
    sums = dict(ledger.sum_tokens_of_runs(run_ids=runs))
    for message in messages:
        yield message, sums.pop(message.run_id, 0) if message.role == Role.ASSISTANT else 0


def _check_conversation(conversation_id: str, is_repairing: bool) -> list[LedgerDifference]:
    """Look at one conversation with its row locked, and mend it."""
    with transaction.atomic():
        chat = lock_conversation(conversation_id=conversation_id)
        if chat is None:
            return []
        true_total = ledger.sum_tokens_of_conversations(conversation_ids=[conversation_id])[conversation_id]
        messages = list(ChatHistory.objects.filter(chat__chat_id=conversation_id).order_by("pk").only(*_MESSAGE))
        pairs = list(_computed(messages))
        report = partial(LedgerDifference, whose=f"conversation {conversation_id}", is_mended=is_repairing)
        wrong = [(message, computed) for message, computed in pairs if message.tokens_consumed != computed]
        found = [
            report(table=HISTORIES, id=one.pk, column="tokens_consumed", stored=one.tokens_consumed, computed=computed)
            for one, computed in wrong
        ]
        if chat.tokens_total != true_total:
            stored = chat.tokens_total
            found.append(report(table=CHATS, id=chat.pk, column="tokens_total", stored=stored, computed=true_total))
        if is_repairing:
            _mend(found)
        unwritten = true_total - sum(computed for _message, computed in pairs)
        if unwritten:
            lost = report(table=HISTORIES, id=0, column="tokens_consumed", stored=0, computed=unwritten)
            found.append(replace(lost, is_mended=False))
    return found


def _mend(found: list[LedgerDifference]) -> None:
    for one in found:
        if one.table == CHATS:
            AgentChat.objects.filter(pk=one.id).update(tokens_total=one.computed)
        else:
            ChatHistory.objects.filter(pk=one.id).update(tokens_consumed=one.computed)


def _check_runs(user_id: int | None, is_repairing: bool, on_progress: Progress) -> Iterator[LedgerDifference]:
    """Look at runs that have ended, and at what was charged for them; one whose answer is under way has time."""
    last_id = ""
    ended = _of_user(ChatRun.objects.filter(is_live__isnull=True), user_id).order_by("pk")
    while totals := dict(ended.filter(pk__gt=last_id).values_list("pk", "total_tokens")[:RUNS_AT_ONCE]):
        last_id = max(totals)
        doubtful = _compare_runs(totals)
        events = {answer_event_id(run_id=run_id): run_id for run_id in {str(one.id) for one in doubtful}}
        under_way = {events[event_id] for event_id in list_under_way(event_ids=events)} if events else set()
        # Once more: what was under way at first may have been written meanwhile.
        for one in _compare_runs({run_id: totals[run_id] for run_id in events.values() if run_id not in under_way}):
            if is_repairing and one.computed:
                _mend_run(one)
                yield replace(one, is_mended=True)
            else:
                yield one
        on_progress(RUNS, last_id)


def _compare_runs(totals: Mapping[str, int]) -> list[LedgerDifference]:
    """Return where a run's own total, or its charge, is not what the ledger has of it."""
    if not totals:
        return []
    # a title is charged by itself, to the first answer's run
    computed = ledger.sum_tokens_of_runs(run_ids=totals, without_purpose=TITLE)
    found: list[LedgerDifference] = []
    for table, column, stored in (
        (RUNS, "total_tokens", totals),
        (HOLDS, "charged_tokens", ledger.list_charges(hold_ids=totals)),
    ):
        found += [
            LedgerDifference(
                table=table, id=run_id, column=column, whose=f"run {run_id}", stored=tokens, computed=computed[run_id]
            )
            for run_id, tokens in stored.items()
            if tokens != computed[run_id]
        ]
    return found


def _mend_run(one: LedgerDifference) -> None:
    if one.table == HOLDS:
        ledger.repair_charge(hold_id=str(one.id), tokens=one.computed)
    else:
        ChatRun.objects.filter(pk=one.id, is_live__isnull=True).update(total_tokens=one.computed)


def _compare_users(user_id: int | None, on_progress: Progress) -> Iterator[SumDifference]:
    if user_id is not None:
        compared = ledger.compare_users(after_id=user_id - 1, limit=1)
        return iter([one for one in compared.differences if one.id == user_id])
    return _walk("users", lambda after_id: ledger.compare_users(after_id=after_id), on_progress)


def _compare_windows(user_id: int | None, on_progress: Progress) -> Iterator[SumDifference]:
    compare = partial(ledger.compare_windows, user_id=user_id)
    return _walk("token_windows", lambda after_id: compare(after_id=after_id), on_progress)


def _walk(table: str, step: Callable[[int], ComparedRows], on_progress: Progress) -> Iterator[SumDifference]:
    last_id: int | None = 0
    while last_id is not None:
        compared = step(last_id)
        yield from compared.differences
        last_id = compared.last_id
        on_progress(table, last_id or 0)


def _of_account(difference: SumDifference, *, is_mended: bool) -> LedgerDifference:
    whose = f"{'user' if difference.table == 'users' else 'window'} {difference.id}"
    return LedgerDifference(
        table=difference.table,
        id=difference.id,
        column=difference.column,
        whose=whose,
        stored=difference.stored,
        computed=difference.computed,
        is_mended=is_mended,
    )


def _of_user(rows: QuerySet[Row], user_id: int | None) -> QuerySet[Row]:
    return rows if user_id is None else rows.filter(user_id=user_id)
