"""The operators' pages of conversations, runs and messages."""

import pytest

from chat.contracts import RunState
from chat.run_queries import count_runs_in_flight
from tests.admin_rows import make_chat, make_history, make_run, operator_client
from tests.factories import make_user

pytestmark = pytest.mark.django_db
VIEW = ("chat.view_agentchat", "chat.view_chatrun", "chat.view_chathistory")
CHATS, RUNS, HISTORIES = (f"/admin/chat/{name}/" for name in ("agentchat", "chatrun", "chathistory"))


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
    chat = make_chat(alice, system_prompt="private prompt")
    run, message = make_run(chat, state=RunState.RUNNING), make_history(chat)
    pages = (CHATS, RUNS, HISTORIES, f"{CHATS}{chat.pk}/change/", f"{RUNS}{run.pk}/change/")
    for page in (*pages, f"{HISTORIES}{message.pk}/change/"):
        response = operator.get(page)
        assert response.status_code == 200
        assert "private" not in response.content.decode()


def test_texts_are_shown_with_the_permission(reader, alice):
    chat = make_chat(alice, system_prompt="private prompt")
    run, message = make_run(chat), make_history(chat)
    assert "private prompt" in reader.get(f"{CHATS}{chat.pk}/change/").content.decode()
    assert "private answer" in reader.get(f"{RUNS}{run.pk}/change/").content.decode()
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
