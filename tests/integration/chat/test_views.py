"""The chat routes that Django serves: codes, shapes, and that Bob sees nothing."""

from dataclasses import replace
from uuid import uuid4

import pytest

from chat import operations, queries
from chat.api.serializers import TimelineItemShape
from chat.contracts import ContextStats
from chat.models import AgentChat, ChatRun
from smartflow.kernel.clock import utc_now
from tests.integration.chat.turns import another, ask, result, talk

pytestmark = pytest.mark.django_db
META, LIST, TIMELINE = (f"/api/v1/agent/conversation-{name}" for name in ("meta", "list", "timeline"))
STATS = "/api/v1/agent/context-stats"


@pytest.fixture
def conversation_id(alice):
    return talk(alice, ("Secret question", "Secret answer"))


def one(conversation_id):
    return f"/api/v1/agent/conversations/{conversation_id}"


def test_meta_shows_the_conversation(alice_client, conversation_id):
    body = alice_client.get(META, {"conversation_id": conversation_id.upper()}).json()

    assert body["status"] == "10000"
    data = body["data"]
    assert (data["conversation_id"], data["title"], data["has_title"]) == (conversation_id, "", False)
    assert (data["status"], data["message_count"]) == ("active", 0)
    assert data["last_message_at"]


def test_timeline_shows_both_messages_as_documented(alice, alice_client, conversation_id):
    data = alice_client.get(TIMELINE, {"conversation_id": conversation_id}).json()["data"]

    assert [(item["kind"], item["content"]) for item in data] == [
        ("user_text", "Secret question"),
        ("assistant_text", "Secret answer"),
    ]
    items = queries.list_timeline(user_id=alice.pk, conversation_id=conversation_id, limit=9)
    assert data == TimelineItemShape(items, many=True).data


@pytest.mark.parametrize(("query", "size"), [({}, 20), ({"limit": "5"}, 5), ({"page_size": "7", "limit": "3"}, 3)])
def test_list_takes_the_page_size_and_its_older_name(alice_client, conversation_id, query, size):
    data = alice_client.get(LIST, query).json()["data"]

    assert data["page_size"] == data["limit"] == size
    assert [chat["conversation_id"] for chat in data["list"]] == [conversation_id]


def test_list_bounds_the_page_size(alice_client):
    assert alice_client.get(LIST, {"page_size": "100000"}).json()["data"]["page_size"] == 100


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        (META, {}, 400, "40004"),
        (META, {"conversation_id": ""}, 400, "40004"),
        (META, {"conversation_id": "x"}, 400, "40005"),
        (META, {"conversation_id": str(uuid4())}, 404, "40401"),
        (TIMELINE, {}, 400, "40004"),
        (TIMELINE, {"conversation_id": str(uuid4())}, 404, "40401"),
        (TIMELINE, {"conversation_id": str(uuid4()), "before_seq": "0"}, 400, "40005"),
        (TIMELINE, {"conversation_id": str(uuid4()), "before_seq": "9", "after_seq": "1"}, 400, "40005"),
        (TIMELINE, {"conversation_id": str(uuid4()), "limit": "501"}, 400, "40005"),
        (STATS, {}, 400, "40004"),
        (STATS, {"conversation_id": "x"}, 400, "40005"),
        (STATS, {"conversation_id": str(uuid4())}, 404, "40401"),
        (LIST, {"page": "0"}, 400, "40005"),
        (LIST, {"page": "x"}, 400, "40005"),
        (LIST, {"status": "deleted"}, 400, "40005"),
        (LIST, {"pages": "1"}, 400, "40005"),
    ],
)
def test_wrong_queries_are_refused(alice_client, path, query, status, code):
    answer = alice_client.get(path, query)

    assert (answer.status_code, answer.json()["status"]) == (status, code), answer.json()


def test_patch_renames_and_archives(alice_client, conversation_id):
    answer = alice_client.patch(one(conversation_id), {"title": "数学", "status": "archived"}, format="json")

    assert (answer.status_code, answer.json()) == (200, {"status": "10000", "info": "success"})
    chat = AgentChat.objects.get()
    assert (chat.title, chat.status) == ("数学", "archived")


def test_delete_hides_and_the_second_time_is_404(alice_client, conversation_id):
    assert alice_client.delete(one(conversation_id)).status_code == 200
    assert alice_client.delete(one(conversation_id)).status_code == 404
    assert AgentChat.objects.get().deleted_at is not None


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", META), ("get", TIMELINE), ("get", STATS), ("patch", "one"), ("delete", "one")],
)
def test_bob_is_told_that_alices_conversation_does_not_exist(bob_client, conversation_id, method, path):
    if path == "one":
        answer = getattr(bob_client, method)(one(conversation_id), {"title": "Mine"}, format="json")
    else:
        answer = bob_client.get(path, {"conversation_id": conversation_id})

    assert (answer.status_code, answer.json()["status"]) == (404, "40401")
    assert "Secret" not in answer.content.decode()
    chat = AgentChat.objects.get()
    assert (chat.title, chat.deleted_at) == (None, None)


def test_list_of_bob_is_empty(bob_client, conversation_id):
    data = bob_client.get(LIST).json()["data"]

    assert (data["list"], data["total"]) == ([], 0)


@pytest.mark.parametrize(("method", "path"), [("get", META), ("get", LIST), ("get", TIMELINE), ("get", STATS)])
def test_without_a_token_nothing_is_shown(anonymous, conversation_id, method, path):
    answer = anonymous.get(path, {"conversation_id": conversation_id} if path != LIST else {})

    assert (answer.status_code, answer.json()["status"]) == (401, "40009")


def test_stream_under_wsgi_says_what_is_wrong(alice_client):
    answer = alice_client.post("/api/v1/agent/chat", {"message": "Hi"}, format="json")

    assert (answer.status_code, answer.json()["status"]) == (503, "50300")


def test_context_stats_are_null_before_the_first_call_and_then_told_by_part(alice, alice_client):
    run = ask(alice)
    query = {"conversation_id": run.conversation_id}
    assert alice_client.get(STATS, query).json() == {"status": "10000", "info": "success", "data": None}

    stats = ContextStats(msg0=1, msg1=2, msg3=4, total=7, budget=80000)
    operations.finish_run(run=run, result=replace(result(), stats=stats), now=utc_now())

    data = alice_client.get(STATS, query).json()["data"]
    assert data == {"msg0": 1, "msg1": 2, "msg2": 0, "msg3": 4, "total": 7, "budget": 80000}


def test_meta_names_the_live_run(alice, alice_client):
    run = ask(alice)
    query = {"conversation_id": run.conversation_id}
    assert alice_client.get(META, query).json()["data"]["live_run_id"] == run.run_id

    operations.finish_run(run=run, result=result(), now=utc_now())
    assert alice_client.get(META, query).json()["data"]["live_run_id"] is None


def runs(run_id, action):
    return f"/api/v1/agent/runs/{run_id}/{action}"


def test_variants_are_listed_and_one_is_selected(alice, alice_client, conversation_id):
    first = ChatRun.objects.get().id
    second = another(alice, first, answer="Better")

    def shown():
        data = alice_client.get(runs(second.run_id, "variants")).json()["data"]
        return [(one["run_id"], one["variant_no"], one["content"], one["is_current"]) for one in data]

    assert shown() == [(first, 1, "Secret answer", False), (second.run_id, 2, "Better", True)]
    answer = alice_client.post(runs(first, "select"))
    assert (answer.status_code, answer.json()) == (200, {"status": "10000", "info": "success"})
    assert [one[3] for one in shown()] == [True, False]


def test_select_is_refused_while_an_answer_is_under_way_and_for_an_earlier_question(alice, alice_client):
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))
    earlier, last = ChatRun.objects.order_by("turn_no").values_list("id", flat=True)

    answer = alice_client.post(runs(earlier, "select"))
    assert (answer.status_code, answer.json()["status"]) == (409, "40912")
    live = ask(alice, conversation_id=conversation_id)
    answer = alice_client.post(runs(last, "select"))
    assert (answer.status_code, answer.json()["status"]) == (409, "40910")
    assert answer.json()["run_id"] == live.run_id


@pytest.mark.parametrize(("method", "action"), [("get", "variants"), ("post", "select")])
def test_runs_of_alice_do_not_exist_for_bob(bob_client, conversation_id, method, action):
    for run_id in (ChatRun.objects.get().id, str(uuid4())):
        answer = getattr(bob_client, method)(runs(run_id, action))

        assert (answer.status_code, answer.json()["status"]) == (404, "40402")
        assert "Secret" not in answer.content.decode()
