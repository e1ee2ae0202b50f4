"""Admin lists cost the same with five rows and with fifty, and never count a table."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.contracts import RunState
from outbox.models import KeyHold, Status
from smartflow.accounts.models import User
from smartflow.api.idempotency_records import claim_key
from smartflow.kernel.clock import utc_now
from tests.admin_rows import (
    make_chat,
    make_entry,
    make_history,
    make_row,
    make_run,
    make_session,
    make_snapshot,
    make_timeline_entry,
    operator_client,
)
from tests.factories import make_user
from tests.memory_rows import add_memory, turn_switch
from tests.task_rows import add_class, add_deleted_task, add_task

pytestmark = pytest.mark.django_db
ALL_PERMISSIONS = (
    *("outbox.view_outboxmessage", "outbox.requeue_outboxmessage", "outbox.discard_outboxmessage"),
    *("chat.view_agenttimelineevent", "chat.view_agentstatesnapshot"),
    *("chat.view_memoryitem", "chat.view_memoryauditlog", "chat.view_memorysettings"),
    *("chat.view_agentchat", "chat.view_chatrun", "chat.view_chathistory", "chat.view_message_text"),
    *("accounts.view_user", "accounts.view_tokensession", "accounts.end_tokensession"),
    *("accounts.view_tokenledgerentry", "tasks.view_task", "tasks.view_taskclass", "tasks.view_taskitem"),
    "edge.view_idempotencyrecord",
)
LISTS = {
    "/admin/outbox/outboxmessage/": lambda n: make_row(),
    "/admin/outbox/outboxmessage/?status=consumed": lambda n: make_row(Status.CONSUMED),
    "/admin/outbox/outboxmessage/?q=k": lambda n: make_row(key="k"),
    "/admin/outbox/outboxmessage/?status=ready": lambda n: make_row(),
    "/admin/outbox/outboxmessage/?status=waiting": lambda n: make_row(next_retry_at=utc_now()),
    "/admin/outbox/outboxmessage/?q=r": lambda n: make_row(request_id="r"),
    "/admin/outbox/keyhold/": lambda n: KeyHold.objects.create(message_key=f"k{n}", head_id=n, since=utc_now()),
    "/admin/outbox/deadletter/": lambda n: make_row(Status.DEAD),
    "/admin/chat/agentchat/": lambda n: make_chat(make_user(f"u{n}")),
    "/admin/chat/chatrun/": lambda n: make_run(make_chat(make_user(f"u{n}")), state=RunState.RUNNING),
    "/admin/chat/chathistory/": lambda n: make_history(make_chat(make_user(f"u{n}"))),
    "/admin/chat/agenttimelineevent/": lambda n: make_timeline_entry(make_chat(make_user(f"u{n}"))),
    "/admin/chat/agentstatesnapshot/": lambda n: make_snapshot(make_chat(make_user(f"u{n}"))),
    "/admin/chat/memoryitem/": lambda n: add_memory(make_user(f"u{n}")),
    "/admin/chat/memoryitem/?status=active": lambda n: add_memory(make_user(f"u{n}")),
    "/admin/chat/memoryitem/?type=preference": lambda n: add_memory(make_user(f"u{n}")),
    "/admin/chat/memoryitem/?q=operator": lambda n: add_memory(User.objects.get(username="operator")),
    "/admin/chat/memoryauditlog/": lambda n: add_memory(make_user(f"u{n}")),
    "/admin/chat/memorysettings/": lambda n: turn_switch(make_user(f"u{n}")),
    "/admin/accounts/user/": lambda n: make_user(f"u{n}"),
    "/admin/accounts/user/?q=u": lambda n: make_user(f"u{n}"),
    "/admin/accounts/user/?state=locked": lambda n: make_user(f"u{n}", is_active=False),
    "/admin/accounts/tokenledgerentry/": lambda n: make_entry(make_user(f"u{n}")),
    "/admin/accounts/tokenledgerentry/?q=operator": lambda n: make_entry(User.objects.get(username="operator")),
    "/admin/accounts/tokenledgerentry/?kind=usage": lambda n: make_entry(make_user(f"u{n}")),
    "/admin/tasks/task/": lambda n: add_task(make_user(f"u{n}")),
    "/admin/tasks/task/?state=open": lambda n: add_task(make_user(f"u{n}")),
    "/admin/tasks/task/?state=deleted": lambda n: add_deleted_task(make_user(f"u{n}")),
    "/admin/tasks/task/?q=operator": lambda n: add_task(User.objects.get(username="operator")),
    "/admin/tasks/taskclass/": lambda n: add_class(make_user(f"u{n}")),
    "/admin/tasks/taskclass/?mode=manual": lambda n: add_class(make_user(f"u{n}")),
    "/admin/edge/idempotencyrecord/": lambda n: claim_key(user_id=n, key="k", fingerprint="f", now=utc_now()),
    "/admin/edge/idempotencyrecord/?q=1": lambda n: claim_key(user_id=1, key=f"k{n}", fingerprint="f", now=utc_now()),
    "/admin/edge/idempotencyrecord/?kept=yes": lambda n: claim_key(user_id=n, key="k", fingerprint="f", now=utc_now()),
    "/admin/accounts/tokensession/": lambda n: make_session(make_user(f"u{n}")),
    "/admin/accounts/tokensession/?state=live": lambda n: make_session(make_user(f"u{n}")),
}


def queries_of(client, url):
    with CaptureQueriesContext(connection) as captured:
        response = client.get(url)
    assert response.status_code == 200
    return [query["sql"] for query in captured], len(response.context["cl"].result_list)


@pytest.mark.parametrize("url", LISTS)
def test_list_costs_the_same_with_five_and_with_fifty_rows(url):
    client = operator_client(*ALL_PERMISSIONS)
    for number in range(5):
        LISTS[url](number)
    client.get(url)  # content types are looked up once a process
    few, shown_before = queries_of(client, url)
    for number in range(5, 49):
        LISTS[url](number)
    many, shown_after = queries_of(client, url)
    assert shown_after >= shown_before + 44
    assert len(many) == len(few)
    assert not [sql for sql in many if "COUNT(" in sql.upper()]


@pytest.mark.parametrize(
    ("url", "table", "column"),
    [
        ("/admin/outbox/outboxmessage/", "agent_outbox_messages", "payload"),
        ("/admin/outbox/deadletter/", "agent_outbox_messages", "payload"),
        ("/admin/chat/chatrun/", "chat_runs", "output_text"),
        ("/admin/chat/agentchat/", "agent_chats", "system_prompt"),
        ("/admin/chat/chathistory/", "chat_histories", "password"),
        ("/admin/chat/agenttimelineevent/", "agent_timeline_events", "payload"),
        ("/admin/chat/agentstatesnapshot/", "agent_state_snapshot_records", "snapshot_json"),
        ("/admin/chat/memoryitem/", "memory_items", '"content"'),
        ("/admin/chat/memoryauditlog/", "memory_audit_logs", '"after"'),
    ],
)
def test_list_does_not_load_what_it_does_not_show(url, table, column):
    client = operator_client(*ALL_PERMISSIONS)
    make_row(Status.DEAD)
    chat = make_chat(make_user("u"))
    make_run(chat, state=RunState.RUNNING)
    make_history(chat)
    make_timeline_entry(chat)
    make_snapshot(chat)
    add_memory(chat.user)
    statements, shown = queries_of(client, url)
    reads = [sql for sql in statements if table in sql]
    assert shown == 1
    assert reads
    assert not [sql for sql in reads if column in sql.replace("`", '"')]


def test_row_page_costs_the_same_with_few_and_with_many_neighbours():
    client = operator_client(*ALL_PERMISSIONS)
    rows = [make_row(Status.CONSUMED, key="k") for _ in range(2)]
    url = f"/admin/outbox/outboxmessage/{rows[0].pk}/change/"
    client.get(url)  # content types are looked up once a process
    with CaptureQueriesContext(connection) as few:
        client.get(url)
    for _ in range(30):
        make_row(Status.CONSUMED, key="k")
    with CaptureQueriesContext(connection) as many:
        client.get(url)
    assert len(many) == len(few)


def test_page_of_a_user_costs_the_same_with_few_and_with_many_sessions():
    client = operator_client(*ALL_PERMISSIONS)
    user = make_user("u")
    url, costs = f"/admin/accounts/user/{user.pk}/change/", []
    for count in (2, 30):
        for _ in range(count):
            make_session(user)
        client.get(url)  # content types are looked up once a process
        with CaptureQueriesContext(connection) as captured:
            client.get(url)
        costs.append(len(captured))
    assert costs[0] == costs[1] <= 9


@pytest.mark.parametrize("page", ["agentchat", "chatrun"])
def test_page_with_a_timeline_costs_the_same_with_few_and_with_many_entries(page):
    client = operator_client(*ALL_PERMISSIONS)
    chat = make_chat(make_user("u"))
    run = make_run(chat)
    url = f"/admin/chat/{page}/{run.pk if page == 'chatrun' else chat.pk}/change/"
    costs = []
    for seqs in (range(1, 3), range(3, 40)):
        for seq in seqs:
            make_timeline_entry(chat, seq=seq, run_id=run.pk)
            make_history(chat)
        client.get(url)
        with CaptureQueriesContext(connection) as captured:
            client.get(url)
        costs.append(len(captured))
    assert costs[0] == costs[1] <= 11


def test_overview_costs_the_same_with_few_and_with_many_rows_and_counts_no_more_than_the_cap():
    client = operator_client("outbox.view_outboxmessage")
    client.get("/admin/overview/")
    with CaptureQueriesContext(connection) as few:
        client.get("/admin/overview/")
    for number in range(15):
        head = make_row(Status.DEAD, key=f"k{number}")
        KeyHold.objects.create(message_key=head.message_key, head_id=head.pk, since=head.created_at)
        for _ in range(3):
            make_row(key=head.message_key)
    with CaptureQueriesContext(connection) as many:
        client.get("/admin/overview/")
    # nobody is blocked at first: then the heads need not be read; four are the session, the user and the permissions
    assert (len(few), len(many)) == (11, 12)
    counts = [query["sql"] for query in many if "COUNT(" in query["sql"].upper()]
    assert len(counts) == 2
    for sql in counts:
        assert sql.count("COUNT(") == sum(sql.count(f"LIMIT {cap}") for cap in (1001, 10001))


def test_key_page_costs_the_same_with_few_and_with_many_rows():
    client = operator_client(*ALL_PERMISSIONS)
    url = "/admin/outbox/outboxmessage/key/?key=k"
    costs = []
    for count in (2, 60):
        for _ in range(count):
            make_row(key="k")
        with CaptureQueriesContext(connection) as captured:
            client.get(url)
        costs.append(len(captured))
    assert costs[0] == costs[1] <= 16
