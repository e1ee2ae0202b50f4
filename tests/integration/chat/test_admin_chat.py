"""The operators' pages of conversations, runs and messages."""

import pytest

from chat.contracts import RunState
from chat.operations import finish_run
from chat.run_queries import count_runs_in_flight
from outbox.testing import drain
from smartflow.kernel.clock import utc_now
from tests.admin_rows import (
    make_chat,
    make_history,
    make_run,
    make_snapshot,
    make_timeline_entry,
    operator_client,
)
from tests.factories import make_user
from tests.integration.chat.turns import another, ask, result

pytestmark = pytest.mark.django_db
MODELS = ("agentchat", "chatrun", "chathistory", "agenttimelineevent", "agentstatesnapshot")
VIEW = tuple(f"chat.view_{name}" for name in MODELS)
CHATS, RUNS, HISTORIES, TIMELINE, STATES = (f"/admin/chat/{name}/" for name in MODELS)


@pytest.fixture
def operator():
    return operator_client(*VIEW)


@pytest.fixture
def reader():
    return operator_client(*VIEW, "chat.view_message_text", username="reader")


def listed(response):
    return [row.pk for row in response.context["cl"].result_list]


def test_conversations_are_found_by_id_and_by_user(operator, alice, bob):
    mine, other = make_chat(alice), make_chat(bob)
    assert listed(operator.get(CHATS)) == [other.pk, mine.pk]
    for term in (mine.chat_id, "alice", str(alice.pk)):
        assert listed(operator.get(CHATS, {"q": term})) == [mine.pk]
    assert listed(operator.get(CHATS, {"q": "ali"})) == []


def test_conversation_page_shows_its_latest_runs_and_messages(operator, alice):
    chat = make_chat(alice, system_prompt="private prompt")
    for turn_no in range(1, 26):
        make_run(chat, turn_no=turn_no)
    message = make_history(chat)
    response = operator.get(f"{CHATS}{chat.pk}/change/")
    shown = [line.cells[0] for line in response.context["runs"].lines]
    assert [f">{turn_no}<" in cell for turn_no, cell in zip(range(25, 5, -1), shown, strict=True)] == [True] * 20
    assert [f">#{message.pk}<" in line.cells[0] for line in response.context["histories"].lines] == [True]
    assert "private" not in response.content.decode()


def test_conversation_page_is_reached_by_its_public_id(operator, alice):
    chat = make_chat(alice)
    response = operator.get(f"{CHATS}by-chat-id/{chat.chat_id}/")
    assert response["Location"] == f"{CHATS}{chat.pk}/change/"
    assert operator.get(f"{CHATS}by-chat-id/none/").status_code == 404


def test_runs_in_flight_are_shown_unless_another_state_is_chosen(operator, alice):
    failed = make_run(make_chat(alice), state=RunState.FAILED, error_code="model_cut")
    running = make_run(make_chat(alice), state=RunState.RUNNING)
    assert listed(operator.get(RUNS)) == [running.pk]
    assert listed(operator.get(RUNS, {"state": "failed"})) == [failed.pk]
    assert listed(operator.get(RUNS, {"state": "any"})) == [running.pk]


def test_runs_are_found_in_every_state_by_run_conversation_and_user(operator, alice, bob):
    chat = make_chat(alice)
    first, second = make_run(chat), make_run(chat, turn_no=2, state=RunState.RUNNING)
    make_run(make_chat(bob))
    assert listed(operator.get(RUNS, {"q": first.pk})) == [first.pk]
    assert listed(operator.get(RUNS, {"q": chat.chat_id})) == [second.pk, first.pk]
    assert listed(operator.get(RUNS, {"q": "alice"})) == [second.pk, first.pk]
    assert listed(operator.get(RUNS, {"q": "alice", "state": "finished"})) == [first.pk]


def test_runs_page_by_time_forth_and_back(operator, alice):
    runs = [make_run(make_chat(alice)).pk for _ in range(60)][::-1]
    first = operator.get(RUNS, {"state": "finished"})
    second = operator.get(RUNS + first.context["cl"].next_page)
    assert listed(first) + listed(second) == runs
    assert listed(operator.get(RUNS + second.context["cl"].previous_page)) == runs[:50]


def test_messages_are_found_by_conversation_event_and_user(operator, alice):
    message = make_history(make_chat(alice))
    make_history(make_chat(make_user("carol")))
    for term in (message.chat_id, message.source_event_id, "alice"):
        assert listed(operator.get(HISTORIES, {"q": term})) == [message.pk]


def test_texts_are_hidden_without_the_permission(operator, alice):
    chat = make_chat(alice, system_prompt="private prompt", compaction_summary="private summary")
    run, message = (
        make_run(chat, state=RunState.RUNNING, output_events=[{"at": 0, "data": "private"}]),
        make_history(chat),
    )
    entry, state = make_timeline_entry(chat, run_id=run.pk), make_snapshot(chat)
    rows = {CHATS: chat, RUNS: run, HISTORIES: message, TIMELINE: entry, STATES: state}
    for page in (*rows, *(f"{page}{row.pk}/change/" for page, row in rows.items())):
        response = operator.get(page)
        assert response.status_code == 200
        assert "private" not in response.content.decode()


def test_texts_are_shown_with_the_permission(reader, alice):
    chat = make_chat(alice, system_prompt="private prompt", compaction_summary="private summary")
    run, message = make_run(chat), make_history(chat)
    entry, state = make_timeline_entry(chat, run_id=run.pk, content="private entry"), make_snapshot(chat)

    def page(url, row):
        return reader.get(f"{url}{row.pk}/change/").content.decode()

    for text in ("private prompt", "private summary", "private entry"):
        assert text in page(CHATS, chat)
    for text in ("private answer", "private entry"):
        assert text in page(RUNS, run)
    for text in ("private entry", "private payload"):
        assert text in page(TIMELINE, entry)
    assert "private state" in page(STATES, state)
    assert "private entry" in reader.get(TIMELINE).content.decode()
    assert "private words" in reader.get(f"{HISTORIES}{message.pk}/change/").content.decode()
    assert "private words" in reader.get(HISTORIES).content.decode()


@pytest.mark.parametrize(
    "query", [{"input_text__contains": "p"}, {"chat__system_prompt__contains": "p"}, {"user__password__contains": "p"}]
)
def test_texts_cannot_be_guessed_through_the_url(operator, query):
    assert operator.get(RUNS, query).status_code == 400


def test_rows_cannot_be_changed(reader, alice):
    chat = make_chat(alice)
    for page in (f"{CHATS}{chat.pk}", f"{RUNS}{make_run(chat).pk}", f"{HISTORIES}{make_history(chat).pk}"):
        assert reader.post(f"{page}/change/", {"title": "x"}).status_code == 403
        assert reader.post(f"{page}/delete/", {"post": "yes"}).status_code == 403


def test_count_runs_in_flight_counts_live_runs_up_to_the_cap(alice):
    for state in (RunState.RUNNING, RunState.QUEUED, RunState.FINISHED):
        make_run(make_chat(alice), state=state)
    assert str(count_runs_in_flight()) == "2"
    assert str(count_runs_in_flight(cap=1)) == "1+"


def test_timeline_is_found_by_conversation_and_by_run_in_its_order(operator, alice):
    chat, other = make_chat(alice), make_chat(alice)
    run = make_run(chat)
    entries = [make_timeline_entry(chat, seq=seq, run_id=run.pk if seq > 2 else "") for seq in (1, 2, 3, 4)]
    make_timeline_entry(other)
    expected = [entry.pk for entry in reversed(entries)]
    assert listed(operator.get(TIMELINE, {"q": chat.chat_id})) == expected
    assert listed(operator.get(TIMELINE, {"q": run.pk})) == expected[:2]
    assert listed(operator.get(TIMELINE, {"q": "alice"})) == []
    assert len(listed(operator.get(TIMELINE))) == 5


def test_timeline_of_a_conversation_pages_by_seq_forth_and_back(operator, alice):
    chat = make_chat(alice)
    entries = [make_timeline_entry(chat, seq=seq).pk for seq in range(1, 71)][::-1]
    first = operator.get(TIMELINE, {"q": chat.chat_id})
    second = operator.get(TIMELINE + first.context["cl"].next_page)
    assert listed(first) + listed(second) == entries
    assert listed(operator.get(TIMELINE + second.context["cl"].previous_page)) == entries[:50]


def test_states_are_found_by_conversation_and_user(operator, alice, bob):
    state = make_snapshot(make_chat(alice))
    make_snapshot(make_chat(bob))
    for term in (state.conversation_id, "alice"):
        assert listed(operator.get(STATES, {"q": term})) == [state.pk]


def test_conversation_page_shows_memory_title_and_newest_entries(operator, alice):
    stats = {"msg0": 1, "msg1": 41, "msg2": 0, "msg3": 0, "total": 42, "budget": 80000}
    chat = make_chat(alice, compaction_watermark=17, context_token_stats=stats)
    for seq in range(1, 61):
        make_timeline_entry(chat, seq=seq)
    response = operator.get(f"{CHATS}{chat.pk}/change/")
    shown = [line.cells[0] for line in response.context["timeline"].lines]
    assert [f">{seq}<" in cell for seq, cell in zip(range(60, 10, -1), shown, strict=True)] == [True] * 50
    page = response.content.decode()
    for text in ("17", "80000", "has one"):
        assert text in page


def test_run_page_shows_whose_it_is_and_what_it_cost(operator, alice):
    first = ask(alice)
    finish_run(run=first, result=result(total=9), now=utc_now())
    drain()
    run = another(alice, first.run_id)
    drain()
    response = operator.get(f"{RUNS}{run.run_id}/change/")
    page = response.content.decode()
    for text in ("regenerate", "1.2", run.owner, str(run.held_tokens)):
        assert text in page
    (call,) = response.context["calls"].lines
    assert call.cells[:6] == ("answer", "worker", 5, 0, 4, 9)
    assert [line.cells[1] for line in response.context["timeline"].lines] == ["assistant_text"]
