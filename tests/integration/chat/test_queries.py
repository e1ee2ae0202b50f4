"""Every read of conversations: what is shown, in which order, and that only its owner sees it."""

from datetime import UTC, datetime, timedelta

import pytest

from chat import operations, queries
from chat.contracts import ChatStatus, RunState
from chat.models import ChatRun
from tests.integration.chat.turns import another, ask, result, say, talk

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def timeline(user, conversation_id, *, limit=400, **values):
    return queries.list_timeline(user_id=user.pk, conversation_id=conversation_id, limit=limit, **values)


def test_list_timeline_shows_turns_before_any_event_is_handled(alice):
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))

    items = timeline(alice, conversation_id)

    assert [(item.seq, item.role, item.content) for item in items] == [
        (1, "user", "One"),
        (2, "assistant", "1"),
        (3, "user", "Two"),
        (4, "assistant", "2"),
    ]
    assert [item.tokens_consumed for item in items] == [0, 9, 0, 9]


def test_list_timeline_shows_what_was_said_at_once_and_the_answer_when_it_has_ended(alice):
    run = ask(alice)
    say(run, "Ha")

    assert [item.role for item in timeline(alice, run.conversation_id)] == ["user"]
    found = queries.find_conversation(user_id=alice.pk, conversation_id=run.conversation_id)
    assert found.live_run_id == run.run_id

    operations.finish_run(run=run, result=result("Hallo"), now=NOW)
    answer = timeline(alice, run.conversation_id)[1]
    assert (answer.content, answer.tokens_consumed) == ("Hallo", 9)
    assert answer.payload == {
        "run_id": run.run_id,
        "state": "finished",
        "model": "worker",
        "turn_no": 1,
        "variant_no": 1,
    }


def test_list_timeline_shows_a_failed_turn_with_its_code(alice):
    run = ask(alice)
    failed = result("", state=RunState.FAILED, error_code="model_timeout", total=0)
    operations.finish_run(run=run, result=failed, now=NOW)

    said = timeline(alice, run.conversation_id)[1]

    assert (said.content, said.payload["state"], said.payload["error_code"]) == ("", "failed", "model_timeout")


@pytest.mark.parametrize("limit", [1, 3, 4, 10, 400])
def test_list_timeline_pages_both_ways_without_gap_or_repeat(alice, limit):
    conversation_id = talk(alice, *((f"Q{number}", f"A{number}") for number in range(1, 6)))
    whole = timeline(alice, conversation_id)
    assert [item.seq for item in whole] == list(range(1, 11))

    back = page = timeline(alice, conversation_id, limit=limit)
    while page := timeline(alice, conversation_id, limit=limit, before_seq=page[0].seq):
        back = page + back
    forth = page = timeline(alice, conversation_id, limit=limit, after_seq=0)
    while page := timeline(alice, conversation_id, limit=limit, after_seq=page[-1].seq):
        forth = forth + page

    assert back == forth == whole


def test_nothing_of_alice_is_shown_to_bob(alice, bob):
    conversation_id = talk(alice, ("Secret", "yes"))

    assert timeline(bob, conversation_id) is None
    assert queries.find_conversation(user_id=bob.pk, conversation_id=conversation_id) is None
    assert queries.list_conversations(user_id=bob.pk, page=1, page_size=20).total == 0
    answered = queries.list_answered_turns(user_id=bob.pk, conversation_id=conversation_id, before_turn=9, limit=9)
    assert answered == []


def test_deleted_conversation_is_shown_nowhere(alice):
    conversation_id = talk(alice, ("One", "1"))
    operations.delete_conversation(user_id=alice.pk, conversation_id=conversation_id, now=NOW)

    assert timeline(alice, conversation_id) is None
    assert queries.find_conversation(user_id=alice.pk, conversation_id=conversation_id) is None
    assert list(queries.list_conversations(user_id=alice.pk, page=1, page_size=20).list) == []


def test_list_conversations_puts_the_latest_message_first_and_pages(alice):
    ids = [talk(alice, ("Q", "A"), now=NOW + timedelta(hours=hour)) for hour in range(5)]
    talk(alice, ("Again", "A"), conversation_id=ids[1], now=NOW + timedelta(hours=9))

    pages = [queries.list_conversations(user_id=alice.pk, page=page, page_size=2) for page in (1, 2, 3, 4)]

    assert [view.conversation_id for page in pages for view in page.list] == [ids[1], ids[4], ids[3], ids[2], ids[0]]
    assert [page.has_more for page in pages] == [True, True, False, False]
    assert {page.total for page in pages} == {5}


def test_list_conversations_filters_by_status(alice):
    kept, archived = talk(alice, ("Q", "A")), talk(alice, ("Q", "A"))
    operations.change_conversation(user_id=alice.pk, conversation_id=archived, status=ChatStatus.ARCHIVED)

    def ids(status):
        page = queries.list_conversations(user_id=alice.pk, page=1, page_size=20, status=status)
        return {view.conversation_id for view in page.list}

    assert (ids("active"), ids("archived"), ids("")) == ({kept}, {archived}, {kept, archived})


def test_list_answered_turns_passes_over_turns_without_an_answer(alice):
    conversation_id = talk(alice, ("One", "1"))
    silent = ask(alice, "Two", conversation_id=conversation_id)
    operations.finish_run(run=silent, result=result("", state=RunState.FAILED, error_code="x", total=0), now=NOW)
    cut = ask(alice, "Three", conversation_id=conversation_id)
    operations.finish_run(run=cut, result=result("half", state=RunState.FAILED, error_code="x"), now=NOW)

    turns = queries.list_answered_turns(user_id=alice.pk, conversation_id=conversation_id, before_turn=4, limit=10)

    assert [[message.content for message in turn] for turn in turns] == [["One", "1"], ["Three", "half"]]


def test_list_answered_turns_brings_the_newest_within_the_limit(alice):
    conversation_id = talk(alice, *((f"Q{number}", f"A{number}") for number in range(1, 6)))

    turns = queries.list_answered_turns(user_id=alice.pk, conversation_id=conversation_id, before_turn=5, limit=2)

    assert [turn[0].content for turn in turns] == ["Q3", "Q4"]


@pytest.mark.parametrize("turns", [1, 12])
def test_list_timeline_takes_two_queries_however_long_it_is(alice, django_assert_num_queries, turns):
    conversation_id = talk(alice, *((f"Q{number}", "A") for number in range(turns)))

    with django_assert_num_queries(2):
        timeline(alice, conversation_id)
    with django_assert_num_queries(3):
        timeline(alice, conversation_id, before_seq=9)


def test_list_conversations_counts_up_to_a_bound_and_pages_on_behind_it(alice, monkeypatch):
    monkeypatch.setattr(queries, "MOST_COUNTED", 3)
    for _ in range(5):
        talk(alice, ("Q", "A"))

    pages = [queries.list_conversations(user_id=alice.pk, page=page, page_size=2) for page in (1, 2, 3)]

    assert [len(page.list) for page in pages] == [2, 2, 1]
    assert [page.has_more for page in pages] == [True, True, False]
    assert [page.total for page in pages] == [3, 3, 3]


@pytest.mark.parametrize(("conversations", "queries_made"), [(0, 2), (2, 2), (9, 3)])
def test_list_conversations_takes_as_many_queries_however_many_there_are(
    alice, conversations, queries_made, django_assert_max_num_queries
):
    for _ in range(conversations):
        talk(alice, ("Q", "A"))

    with django_assert_max_num_queries(queries_made):
        queries.list_conversations(user_id=alice.pk, page=1, page_size=3)


def test_list_variants_shows_all_answers_to_the_question(alice, bob):
    conversation_id = talk(alice, ("One", "first"))
    first = ChatRun.objects.get().id
    second = another(alice, first, answer="second")

    for run_id in (first, second.run_id):
        variants = queries.list_variants(user_id=alice.pk, run_id=run_id)
        shown = [(one.variant_no, one.content, one.is_current, one.state) for one in variants]
        assert shown == [(1, "first", False, "finished"), (2, "second", True, "finished")]
    assert queries.list_variants(user_id=bob.pk, run_id=first) is None
    assert queries.list_variants(user_id=alice.pk, run_id=conversation_id) is None
