"""How a run begins: what is written together, what is refused, and that variants and continuations keep the books."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from chat import operations, queries
from chat.contracts import ChatStatus, ContextStats, RunState
from chat.models import AgentChat, AgentTimelineEvent, ChatRun
from chat.operations import (
    AnswerEmpty,
    ConversationNotFound,
    RunAlreadyLive,
    RunNotContinuable,
    RunNotFound,
    RunNotRepeatable,
    TooManyRunsOfUser,
)
from chat.operations import messages as events_of_runs
from chat.operations.turns import CONTINUE_NUDGE, FIRST_OUTPUT_GUESS_TOKENS
from outbox.models import OutboxMessage
from smartflow.accounts.models import TokenHold, TokenWindow
from smartflow.accounts.quota import QuotaExceeded
from smartflow.api.idempotency_records import KeyReused
from smartflow.kernel.ids import new_uuid
from tests.integration.chat.turns import LEASE_SECONDS, again, another, ask, events, go_on, messages, result, talk

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def later(seconds):
    return NOW + timedelta(seconds=seconds)


def test_begin_turn_writes_conversation_run_and_event_together(alice):
    started = ask(alice, "Hello", now=NOW)

    chat = AgentChat.objects.get()
    run = ChatRun.objects.get()
    assert (chat.chat_id, chat.user_id, chat.turn_count, chat.last_message_at) == (
        started.conversation_id,
        alice.pk,
        1,
        NOW,
    )
    assert (run.id, run.state, run.is_live, run.input_text) == (started.run_id, RunState.QUEUED, True, "Hello")
    assert run.lease_until == later(LEASE_SECONDS)
    (event,) = events()
    assert event.event_id == f"{run.id}:user"
    assert (event.payload["role"], event.payload["message"], event.payload["tokens_consumed"]) == ("user", "Hello", 0)
    row = OutboxMessage.objects.get()
    assert (row.message_key, row.request_id) == (chat.chat_id, "req-1")


def test_begin_turn_leaves_nothing_when_its_event_cannot_be_appended(alice, monkeypatch):
    def fail(**_kwargs):
        raise RuntimeError("no room")

    monkeypatch.setattr(events_of_runs, "append_event", fail)

    with pytest.raises(RuntimeError):
        ask(alice)

    assert not AgentChat.objects.exists()
    assert not ChatRun.objects.exists()


def test_begin_turn_counts_turns_of_a_conversation(alice):
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))

    assert ask(alice, "Three", conversation_id=conversation_id).turn_no == 3


def test_begin_turn_refuses_a_second_live_run_and_names_the_first(alice):
    first = ask(alice)

    with pytest.raises(RunAlreadyLive) as caught:
        ask(alice, conversation_id=first.conversation_id)

    assert caught.value.extra == {"run_id": first.run_id}
    assert ChatRun.objects.count() == 1
    assert OutboxMessage.objects.count() == 1


def test_begin_turn_finds_the_first_of_a_message_that_comes_again(alice, bob):
    first = ask(alice, "Hello", key="k1")

    again_live = ask(alice, "Hello", key="k1")
    operations.finish_run(run=first, result=result("Hi"), now=NOW)
    again_ended = ask(alice, "Hello", conversation_id=first.conversation_id, key="k1")
    follow_up = ask(alice, "And?", conversation_id=first.conversation_id, key="k2")
    again_follow_up = ask(alice, "And?", conversation_id=first.conversation_id, key="k2")
    of_bob = ask(bob, "Hello", key="k1")

    assert {(run.run_id, run.conversation_id) for run in (again_live, again_ended)} == {
        (first.run_id, first.conversation_id)
    }
    assert (again_ended.state, again_ended.text) == (RunState.FINISHED, "Hi")
    assert again_follow_up.run_id == follow_up.run_id
    assert of_bob.conversation_id != first.conversation_id
    assert (ChatRun.objects.count(), AgentChat.objects.count(), TokenHold.objects.count()) == (3, 2, 3)
    assert [event.payload["message"] for event in messages()] == ["Hello", "Hi", "And?", "Hello"]
    assert TokenWindow.objects.get(user=alice).held_tokens == follow_up.held_tokens


def test_hold_outlives_the_longest_wait_for_an_executor(alice, settings):
    settings.CHAT_QUEUE_SECONDS = 3600
    ask(alice, now=NOW)

    assert TokenHold.objects.get().expires_at >= NOW + timedelta(seconds=3600 + 300)


def test_begin_turn_refuses_a_key_of_another_message_and_of_what_was_deleted(alice):
    first = ask(alice, "Hello", key="k1")
    elsewhere = talk(alice, ("One", "1"))

    for other in ({"message": "Hello!"}, {"conversation_id": elsewhere}, {"model": "strategist"}):
        with pytest.raises(KeyReused):
            ask(alice, **{"message": "Hello", **other}, key="k1")
    operations.delete_conversation(user_id=alice.pk, conversation_id=first.conversation_id, now=NOW)
    with pytest.raises(ConversationNotFound):
        ask(alice, "Hello", key="k1")

    assert (ChatRun.objects.count(), AgentChat.objects.count()) == (2, 2)


def test_begin_turn_begins_with_the_key_of_what_was_refused(alice):
    live = ask(alice)
    with pytest.raises(RunAlreadyLive):
        ask(alice, "More", conversation_id=live.conversation_id, key="k1")
    operations.finish_run(run=live, result=result(), now=NOW)

    assert ask(alice, "More", conversation_id=live.conversation_id, key="k1").turn_no == 2


def test_begin_turn_refuses_conversations_that_are_not_the_users(alice, bob):
    of_alice = talk(alice, ("Secret", "yes"))
    deleted = talk(bob, ("Old", "gone"))
    operations.delete_conversation(user_id=bob.pk, conversation_id=deleted, now=NOW)

    for conversation_id in (of_alice, deleted, new_uuid()):
        with pytest.raises(ConversationNotFound):
            ask(bob, conversation_id=conversation_id)


def test_begin_turn_brings_an_archived_conversation_back(alice):
    conversation_id = talk(alice, ("One", "1"))
    operations.change_conversation(user_id=alice.pk, conversation_id=conversation_id, status=ChatStatus.ARCHIVED)

    ask(alice, conversation_id=conversation_id)

    assert AgentChat.objects.get().status == ChatStatus.ACTIVE


def test_database_itself_allows_one_live_run_a_conversation(alice):
    run = ask(alice)
    twin = ChatRun.objects.get(id=run.run_id)
    twin.pk, twin.turn_no = new_uuid(), 2

    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save(force_insert=True)


def test_begin_turn_holds_what_the_turn_may_cost(alice):
    run = ask(alice, now=NOW)

    hold = TokenHold.objects.get(hold_id=run.run_id)
    assert (hold.user_id, hold.tokens, hold.settled_at) == (alice.pk, run.held_tokens, None)
    assert ChatRun.objects.get().held_tokens == run.held_tokens > FIRST_OUTPUT_GUESS_TOKENS
    assert TokenWindow.objects.get().held_tokens == run.held_tokens


def test_begin_turn_guesses_by_what_the_conversation_took_last_time(alice):
    first = ask(alice, now=NOW)
    stats = ContextStats(msg1=3000, total=3000, budget=80000)
    operations.finish_run(run=first, result=replace(result(), stats=stats), now=NOW)  # an answer of 4 tokens

    second = ask(alice, conversation_id=first.conversation_id, now=NOW)

    assert second.held_tokens == first.held_tokens + 3000 + 4


def test_begin_turn_beyond_the_quota_is_refused_and_leaves_nothing(alice):
    alice.token_limit = 100
    alice.save()

    with pytest.raises(QuotaExceeded):
        ask(alice)

    for model in (AgentChat, ChatRun, OutboxMessage, TokenHold, AgentTimelineEvent):
        assert not model.objects.exists()


@pytest.mark.parametrize("begin", ["turn", "variant", "continuation"])
def test_a_user_has_no_more_live_runs_than_the_cap_in_whatever_way_they_begin(alice, bob, settings, begin):
    settings.CHAT_MAX_LIVE_RUNS_OF_USER = 2
    cut = ask(alice)
    operations.finish_run(run=cut, result=result("Ha", state=RunState.STOPPED), now=NOW)
    ask(alice)
    second = ask(alice)
    begin_one = {
        "turn": lambda: ask(alice, conversation_id=cut.conversation_id),
        "variant": lambda: again(alice, cut.run_id),
        "continuation": lambda: go_on(alice, cut.run_id),
    }[begin]

    with pytest.raises(TooManyRunsOfUser) as caught:
        begin_one()

    assert caught.value.extra["retry_after_seconds"] > 0
    assert ChatRun.objects.filter(is_live=True).count() == TokenHold.objects.filter(settled_at=None).count() == 2
    ask(bob)
    operations.finish_run(run=second, result=result(), now=NOW)
    begin_one()


def test_begin_turn_without_an_owner_waits_for_an_executor(alice):
    run = ask(alice, owner="", now=NOW)

    row = ChatRun.objects.get()
    assert (row.owner, row.epoch, row.lease_until) == ("", 0, NOW)
    assert [waiting.run_id for waiting in operations.list_claimable_runs(now=later(1), limit=9)] == [run.run_id]


@pytest.mark.parametrize(
    ("begin", "statements"),
    [("turn", 13), ("variant", 13), ("continuation", 13)],
)
def test_beginning_a_run_takes_as_many_statements_however_long_the_conversation(
    alice, begin, statements, django_assert_num_queries
):
    conversation_id = talk(alice, *[("Q", "A")] * 9)
    last = ask(alice, conversation_id=conversation_id)
    operations.finish_run(run=last, result=result("half", state=RunState.STOPPED), now=NOW)

    with django_assert_num_queries(statements):
        if begin == "turn":
            ask(alice, conversation_id=conversation_id)
        else:
            {"variant": again, "continuation": go_on}[begin](alice, last.run_id)


# --- begin_variant, select_variant


def last_run(conversation_id):
    return ChatRun.objects.filter(chat__chat_id=conversation_id).order_by("-turn_no", "variant_no")[0]


def currents():
    return list(ChatRun.objects.order_by("turn_no", "variant_no").values_list("variant_no", "is_current"))


def remembered(user, conversation_id):
    turns = queries.list_answered_turns(user_id=user.pk, conversation_id=conversation_id, before_turn=99, limit=99)
    return [(asked.content, said.content) for asked, said in turns]


def test_begin_variant_asks_the_last_question_once_more(alice):
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))
    first = last_run(conversation_id)

    run = again(alice, first.id, now=NOW)

    assert (run.kind, run.turn_no, run.variant_no, run.message) == ("regenerate", 2, 2, "Two")
    assert (run.model, run.thinking) == (first.model, first.thinking)
    assert AgentChat.objects.get().turn_count == 2
    assert [event.payload["message"] for event in messages()] == ["One", "1", "Two", "2"]  # no second question


def test_variant_counts_when_it_has_ended_with_something_said(alice):
    conversation_id = talk(alice, ("One", "1"))

    run = again(alice, last_run(conversation_id).id)
    assert currents() == [(1, True), (2, False)]
    operations.finish_run(run=run, result=result("better"), now=NOW)

    assert currents() == [(1, False), (2, True)]
    assert remembered(alice, conversation_id) == [("One", "better")]


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPED])
def test_variant_that_says_nothing_leaves_the_earlier_answer_in_its_place(alice, state):
    conversation_id = talk(alice, ("One", "1"))

    run = again(alice, last_run(conversation_id).id)
    operations.finish_run(run=run, result=result("", state=state, total=0), now=NOW)

    assert currents() == [(1, True), (2, False)]
    assert remembered(alice, conversation_id) == [("One", "1")]


def test_variant_of_a_variant_counts_on(alice):
    conversation_id = talk(alice, ("One", "1"))
    second = another(alice, last_run(conversation_id).id)

    assert again(alice, second.run_id).variant_no == 3


def test_select_variant_lets_another_answer_count_and_says_so_once(alice):
    conversation_id = talk(alice, ("One", "1"))
    first = last_run(conversation_id).id
    another(alice, first, answer="better")

    for _ in range(2):
        operations.select_variant(user_id=alice.pk, run_id=first, now=NOW)

    assert currents() == [(1, True), (2, False)]
    assert remembered(alice, conversation_id) == [("One", "1")]
    entries = AgentTimelineEvent.objects.filter(kind="variant_selected")
    assert [entry.payload for entry in entries] == [{"run_id": first, "turn_no": 1, "variant_no": 1}]


def test_answer_without_text_cannot_be_chosen(alice):
    conversation_id = talk(alice, ("One", "1"))
    another(alice, last_run(conversation_id).id, answer="")
    empty = ChatRun.objects.get(variant_no=2).id

    with pytest.raises(AnswerEmpty):
        operations.select_variant(user_id=alice.pk, run_id=empty, now=NOW)

    assert currents() == [(1, True), (2, False)]


def test_only_the_last_question_is_answered_anew_and_only_in_quiet(alice):
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))
    earlier = ChatRun.objects.get(turn_no=1).id
    last = last_run(conversation_id).id

    for refused in (again, lambda user, run_id: operations.select_variant(user_id=user.pk, run_id=run_id, now=NOW)):
        with pytest.raises(RunNotRepeatable):
            refused(alice, earlier)
    live = ask(alice, conversation_id=conversation_id)
    with pytest.raises(RunAlreadyLive) as caught:
        again(alice, last)
    assert caught.value.extra == {"run_id": live.run_id}


# --- begin_continuation


@pytest.mark.parametrize(("state", "code"), [(RunState.STOPPED, ""), (RunState.FAILED, "run_interrupted")])
def test_begin_continuation_goes_on_where_the_answer_was_cut(alice, state, code):
    cut = ask(alice, "One")
    operations.finish_run(run=cut, result=result("half", state=state, error_code=code), now=NOW)

    run = go_on(alice, cut.run_id)
    operations.finish_run(run=run, result=result(" and whole"), now=NOW)

    assert (run.kind, run.turn_no, run.message) == ("continue", 2, CONTINUE_NUDGE)
    timeline = queries.list_timeline(user_id=alice.pk, conversation_id=cut.conversation_id, limit=9)
    assert [(item.kind, item.content) for item in timeline] == [
        ("user_text", "One"),
        ("assistant_text", "half"),
        ("assistant_text", " and whole"),
    ]
    assert timeline[2].payload["kind"] == "continue"
    assert [event.payload["message"] for event in messages()] == ["One", "half", " and whole"]


def test_begin_continuation_refuses_what_is_whole_silent_or_not_the_last(alice):
    whole = talk(alice, ("One", "1"))
    silent = ask(alice)
    operations.finish_run(run=silent, result=result("", state=RunState.FAILED, error_code="x", total=0), now=NOW)
    earlier = ask(alice)
    operations.finish_run(run=earlier, result=result("half", state=RunState.STOPPED), now=NOW)
    talk(alice, ("More", "yes"), conversation_id=earlier.conversation_id)

    for run_id in (last_run(whole).id, silent.run_id, earlier.run_id):
        with pytest.raises(RunNotContinuable):
            go_on(alice, run_id)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_bob_can_do_nothing_with_alices_run(alice, bob, is_deleted):
    run = ask(alice)
    operations.finish_run(run=run, result=result("half", state=RunState.STOPPED), now=NOW)
    someone = bob
    if is_deleted:
        operations.delete_conversation(user_id=alice.pk, conversation_id=run.conversation_id, now=NOW)
        someone = alice

    for refused in (
        lambda: again(someone, run.run_id),
        lambda: go_on(someone, run.run_id),
        lambda: operations.select_variant(user_id=someone.pk, run_id=run.run_id, now=NOW),
    ):
        with pytest.raises(RunNotFound):
            refused()
    assert queries.list_variants(user_id=someone.pk, run_id=run.run_id) is None
    assert queries.find_run(user_id=someone.pk, run_id=run.run_id) is None
    assert ChatRun.objects.count() == 1
