"""Titles: made once after the first answer, never over the user's, and their tokens reach every book once."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, OperationalError

from chat import jobs, operations
from chat.contracts import RunState
from chat.llm.port import ModelCut, ModelRateLimited, StreamEnded, TextDelta, UsageReported
from chat.models import AgentChat, ChatHistory, ChatRun
from chat.operations import titles
from chat.operations.titles import CLAIM_GROWTH, CLAIM_SECONDS, MOST_ATTEMPTS
from chat.runs import titling
from outbox.testing import drain
from smartflow.accounts.ledger import compare_users, compare_windows
from smartflow.accounts.models import TokenHold, TokenLedgerEntry
from tests.integration.chat.turns import another, ask, call, events, result, talk

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def later(seconds):
    return NOW + timedelta(seconds=seconds)


class Scripted:
    """A model that says what it is told, and remembers what it was asked."""

    def __init__(self, *said):
        self.said = said
        self.requests = []
        self.is_closed = False

    async def stream(self, request):
        self.requests.append(request)
        for event in self.said:
            if isinstance(event, Exception):
                raise event
            if event is None:
                await asyncio.sleep(60)
            yield event

    async def aclose(self):
        self.is_closed = True


def titled(text="线性代数", tokens=12):
    return Scripted(TextDelta(text), UsageReported(tokens - 4, 4, tokens), StreamEnded("stop"))


def make(model, at=NOW):
    return titling.make_titles(build_model=lambda: model, clock=lambda: at)


def title():
    return AgentChat.objects.get().title


def books(user):
    """The three sums of rule B and the ledger."""
    user.refresh_from_db()
    return (
        user.token_usage,
        sum(AgentChat.objects.values_list("tokens_total", flat=True)),
        sum(ChatHistory.objects.values_list("tokens_consumed", flat=True)),
        sum(TokenLedgerEntry.objects.values_list("total_tokens", flat=True)),
    )


def test_title_is_made_after_the_first_answer_and_once(alice):
    conversation_id = talk(alice, ("What is an eigenvalue?", "A number"), now=NOW)
    model = titled()

    assert make(model) == 1
    assert (title(), model.is_closed) == ("线性代数", True)

    talk(alice, ("And a vector?", "A list"), conversation_id=conversation_id, now=later(5))
    unused = titled("Other")
    assert make(unused, later(999)) == 0
    assert (title(), unused.requests) == ("线性代数", [])


def test_model_is_told_the_newest_messages_cut_short(alice):
    conversation_id = talk(alice, *((f"Question {n} " + "长" * 5000, f"Answer {n}\nmore") for n in range(6)), now=NOW)
    AgentChat.objects.update(title_due_at=NOW, title="")
    model = titled()

    make(model)

    (request,) = model.requests
    assert (request.purpose, request.model, request.thinking, request.max_output_tokens) == (
        "title",
        "worker",
        "false",
        40,
    )
    (told,) = request.messages
    lines = told.content.splitlines()
    assert [line[:18] for line in lines[:2]] == ["user: Question 2 长", "assistant: Answer "]
    assert len(lines) == 8
    assert max(len(line) for line in lines) <= 80 + len("assistant: ")
    assert AgentChat.objects.get(chat_id=conversation_id).title == "线性代数"


def test_tokens_of_a_title_reach_every_book_once_and_behind_the_answers(alice):
    talk(alice, ("One", "1"), now=NOW)
    make(titled(tokens=12))

    assert [event.event_type for event in events()][-1] == "chat.token_usage.adjust.requested"
    drain()
    drain()

    assert books(alice) == (21, 21, 21, 21)
    assert list(ChatHistory.objects.order_by("id").values_list("role", "tokens_consumed")) == [
        ("user", 0),
        ("assistant", 21),
    ]
    entry = TokenLedgerEntry.objects.get(purpose="title")
    assert (entry.total_tokens, entry.run_id, entry.is_estimated) == (12, ChatRun.objects.get().id, False)
    assert TokenHold.objects.get(hold_id=entry.entry_key).charged_tokens == 12
    assert compare_users().differences == compare_windows().differences == ()


@pytest.mark.parametrize("when", ["before the answer", "before the job", "while the model thinks"])
def test_title_of_the_user_is_never_written_over_and_the_call_is_charged(alice, when):
    run = ask(alice, now=NOW)

    def name_it():
        operations.change_conversation(user_id=alice.pk, conversation_id=run.conversation_id, title="Mine")

    if when == "before the answer":
        name_it()
    operations.finish_run(run=run, result=result(), now=NOW)
    if when == "before the job":
        name_it()
    claimed = operations.claim_titles(now=NOW, limit=9)
    if when == "while the model thinks":
        (conversation,) = claimed
        name_it()
        assert not operations.save_title(conversation=conversation, title="Theirs", calls=(call(12),), now=NOW)
    else:
        assert claimed == []

    assert title() == "Mine"
    drain()
    expected = 21 if when == "while the model thinks" else 9
    assert books(alice) == (expected,) * 4
    assert make(titled(), later(999)) == 0


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPED])
def test_no_title_before_a_whole_answer(alice, state):
    run = ask(alice)
    operations.finish_run(run=run, result=result("half", state=state), now=NOW)

    assert make(titled(), later(999)) == 0


def test_failing_model_is_asked_three_times_and_paid_for_what_it_said(alice, caplog):
    talk(alice, ("One", "1"), now=NOW)
    model = Scripted(TextDelta("Half a ti"), ModelCut("gone"))

    for number in range(MOST_ATTEMPTS + 2):
        assert make(model, later(number * CLAIM_SECONDS * CLAIM_GROWTH)) == 0

    assert len(model.requests) == MOST_ATTEMPTS
    assert (title(), AgentChat.objects.get().title_due_at) == (None, None)
    drain()
    entries = TokenLedgerEntry.objects.filter(purpose="title")
    assert [entry.is_estimated for entry in entries] == [True] * 3
    assert len({entry.entry_key for entry in entries}) == 3
    assert books(alice) == (9 + sum(entry.total_tokens for entry in entries),) * 4
    assert {record.levelname for record in caplog.records if record.name == "chat.runs.titling"} <= {"INFO"}


def test_second_attempt_succeeds_where_the_first_was_refused(alice):
    talk(alice, ("One", "1"), now=NOW)

    assert make(Scripted(ModelRateLimited("slow down"))) == 0
    assert make(titled(), later(CLAIM_SECONDS - 1)) == 0
    assert make(titled(), later(CLAIM_SECONDS)) == 1
    drain()
    assert TokenLedgerEntry.objects.filter(purpose="title").count() == 1


def test_answer_that_is_no_title_is_charged_and_asked_for_anew(alice):
    talk(alice, ("One", "1"), now=NOW)

    assert make(titled('""')) == 0
    assert make(titled("Numbers"), later(CLAIM_SECONDS)) == 1
    drain()
    assert books(alice) == (9 + 24,) * 4


def test_model_that_takes_too_long_is_left_and_paid_for_what_it_said(alice, monkeypatch):
    monkeypatch.setattr(titling, "LIMIT_SECONDS", 0.05)
    talk(alice, ("One", "1"), now=NOW)

    assert make(Scripted(TextDelta("A title that"), None)) == 0
    drain()
    assert TokenLedgerEntry.objects.get(purpose="title").is_estimated


def test_one_that_breaks_takes_no_other_with_it(alice, bob, caplog):
    talk(alice, ("Break", "1"), now=NOW)
    talk(bob, ("Fine", "1"), now=NOW)
    model = titled()
    stream = model.stream

    async def broken(request):
        if "Break" in request.messages[0].content:
            raise KeyError("a bug")
        async for event in stream(request):
            yield event

    model.stream = broken

    assert make(model) == 1
    assert AgentChat.objects.get(user=bob).title == "线性代数"
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


def test_the_first_answer_carries_the_titles_tokens_even_when_it_is_not_current(alice):
    conversation_id = talk(alice, ("One", "1"), now=NOW)
    first = ChatRun.objects.get().id
    another(alice, first, now=NOW)

    make(titled(tokens=12))
    drain()

    assert ChatHistory.objects.get(run_id=first, role="assistant").tokens_consumed == 21
    assert AgentChat.objects.get(chat_id=conversation_id).tokens_total == 30


def test_save_title_twice_charges_once(alice):
    talk(alice, ("One", "1"), now=NOW)
    (conversation,) = operations.claim_titles(now=NOW, limit=1)
    calls = (call(12, call_id="c-1", purpose="title"),)
    assert operations.save_title(conversation=conversation, title="Numbers", calls=calls, now=NOW)

    with pytest.raises(IntegrityError):
        operations.save_title(conversation=conversation, title="Numbers", calls=calls, now=NOW)


def test_title_that_cannot_be_saved_costs_the_others_nothing(alice, monkeypatch, caplog):
    for _ in range(3):
        talk(alice, ("One", "1"), now=NOW)
    save, failed = operations.save_title, []

    def save_all_but_the_first(*, conversation, **arguments):
        if not failed:
            failed.append(conversation.conversation_id)
            raise IntegrityError("the event's id is taken")
        return save(conversation=conversation, **arguments)

    monkeypatch.setattr(operations, "save_title", save_all_but_the_first)

    assert make(titled()) == 2
    assert AgentChat.objects.get(title=None).chat_id == failed[0]
    assert "A title could not be saved" in caplog.text
    assert [event.event_type for event in events()].count("chat.token_usage.adjust.requested") == 2


def test_claim_titles_gives_a_conversation_to_one_of_two_jobs(alice):
    for _ in range(3):
        talk(alice, ("One", "1"), now=NOW)

    first = operations.claim_titles(now=NOW, limit=2)
    second = operations.claim_titles(now=NOW, limit=9)

    assert (len(first), len(second)) == (2, 1)
    assert not {one.conversation_id for one in first} & {one.conversation_id for one in second}


def test_deleted_conversation_gets_no_title(alice):
    conversation_id = talk(alice, ("One", "1"), now=NOW)
    operations.delete_conversation(user_id=alice.pk, conversation_id=conversation_id, now=NOW)

    assert make(titled(), later(9)) == 0


def test_make_titles_says_nothing_while_the_database_is_away(monkeypatch, caplog):
    def away(**_arguments):
        raise OperationalError(2002, "Can't connect")

    monkeypatch.setattr(jobs, "make_due_titles", away)
    monkeypatch.setattr(jobs, "is_away", lambda _error: True)

    jobs.make_titles()

    assert caplog.records == []


@pytest.mark.django_db(transaction=True)
def test_title_is_saved_although_the_database_chose_it_as_the_loser_of_a_conflict(alice, monkeypatch):
    talk(alice, ("One", "1"), now=NOW)
    charge, lost = titles._charge, []

    def lose_once(*arguments):
        if not lost:
            lost.append(True)
            raise OperationalError(1213, "Deadlock found when trying to get lock")
        charge(*arguments)

    monkeypatch.setattr(titles, "_charge", lose_once)

    assert make(titled()) == 1
    assert (title(), lost) == ("线性代数", [True])
