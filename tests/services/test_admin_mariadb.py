"""The admin's lists on MariaDB with many rows: what the database does, not what the ORM meant."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.contracts import RunState
from chat.models import AgentChat, ChatHistory, ChatRun
from outbox.models import KeyHold, OutboxMessage, Status
from outbox.queries import depth_and_lag
from smartflow.accounts.models import TokenSession
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from tests.admin_rows import EVENT_TYPE, operator_client
from tests.factories import make_user
from tests.outbox_rows import new_row

pytestmark = [
    pytest.mark.services,
    pytest.mark.django_db(transaction=True),  # ANALYZE TABLE commits
    pytest.mark.skipif(connection.vendor != "mysql", reason="DATABASE_URL names no MariaDB"),
]
ROWS = 6_000
TABLES = {model._meta.db_table: model for model in (OutboxMessage, AgentChat, ChatHistory, ChatRun, TokenSession)}
PERMISSIONS = (
    *("outbox.view_outboxmessage", "chat.view_agentchat", "chat.view_chatrun", "chat.view_chathistory"),
    "accounts.view_tokensession",
)
OUTBOX, DEAD = "/admin/outbox/outboxmessage/", "/admin/outbox/deadletter/"


def outbox_rows():
    now = utc_now()
    for number in range(ROWS):
        status = (Status.PENDING, Status.PUBLISHED, Status.DEAD)[number % 3] if number % 50 == 0 else Status.CONSUMED
        at = now - timedelta(seconds=ROWS - number)
        yield new_row(
            event_id=f"event-{number}",
            biz_type=EVENT_TYPE,
            topic="t",
            message_key=f"key-{number % 500}",
            payload="{}",
            status=status,
            request_id=f"req-{number // 3}",
            next_retry_at=now if number % 300 == 0 else None,
            published_at=at if status in (Status.PUBLISHED, Status.CONSUMED) else None,
            consumed_at=at if status == Status.CONSUMED else None,
            created_at=at,
            updated_at=at,
        )


def fill():
    now = utc_now()
    OutboxMessage.objects.bulk_create(outbox_rows(), batch_size=1000)
    users = [make_user(f"user-{number}") for number in range(40)]
    chats = [AgentChat(chat_id=new_uuid(), user=users[n % 40]) for n in range(1000)]
    AgentChat.objects.bulk_create(chats)
    chats = list(AgentChat.objects.order_by("id"))  # MySQL tells no ids of many rows
    ChatRun.objects.bulk_create(
        ChatRun(
            id=new_uuid(),
            chat=chats[n % 1000],
            user_id=chats[n % 1000].user_id,
            turn_no=n // 1000,
            model="m",
            owner="o",
            state=(RunState.FAILED if n % 97 == 0 else RunState.FINISHED) if n < 5000 else RunState.RUNNING,
            is_live=None if n < 5000 else True,
            finished_at=now if n < 5000 else None,
            created_at=now - timedelta(seconds=n),
            input_text="q",
        )
        for n in range(5020)
    )
    ChatHistory.objects.bulk_create(
        ChatHistory(
            chat=chats[n % 1000], user_id=chats[n % 1000].user_id, source_event_id=f"e-{n}", run_id="r", created_at=now
        )
        for n in range(4000)
    )
    TokenSession.objects.bulk_create(
        TokenSession(
            id=new_uuid(),
            user=users[n % 40],
            refresh_jti="j",
            created_at=now - timedelta(seconds=n),
            refreshed_at=now,
            expires_at=now,
        )
        for n in range(4000)
    )
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"ANALYZE TABLE {table}")
            cursor.fetchall()
    return chats[0]


def plans(statements):
    """Return each read of a big table with its plan's lines for big tables."""
    found = []
    with connection.cursor() as cursor:
        for sql in statements:
            if not sql.startswith("SELECT") or not any(table in sql for table in TABLES):
                continue
            cursor.execute("EXPLAIN " + sql)
            names = [column[0] for column in cursor.description]
            for values in cursor.fetchall():
                line = dict(zip(names, values, strict=True))
                if line["table"] in TABLES:
                    found.append((sql, line))
    return found


def rows_read(sql):
    with connection.cursor() as cursor:
        cursor.execute("FLUSH STATUS")
        cursor.execute(sql)
        cursor.fetchall()
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for _, value in cursor.fetchall())


def read_by_index(client, url, *, at_most):
    with CaptureQueriesContext(connection) as captured:
        response = client.get(url)
    assert response.status_code == 200, url
    lines = plans([query["sql"] for query in captured])
    assert lines, url
    for sql, line in lines:
        assert line["key"], (url, sql, line)
        assert line["type"] != "ALL", (url, sql, line)
        # MySQL looks into no index that is named to it: its estimate of rows is a share of the table then
        is_guess = "FORCE INDEX" in sql and not connection.mysql_is_mariadb
        rows = rows_read(sql) if is_guess else int(line["rows"] or 0)
        assert rows <= at_most, (url, sql, line)
    return response, lines


def sorts(lines):
    return [line for line in lines if "filesort" in (line[1]["Extra"] or "")]


def test_lists_filters_and_searches_are_answered_by_indexes():
    client, chat = operator_client(*PERMISSIONS), fill()
    row = OutboxMessage.objects.first()
    page_two = client.get(OUTBOX).context["cl"].next_page
    dead_two = client.get(DEAD).context["cl"].next_page or "?"
    in_order = {
        OUTBOX: ROWS,  # by primary key, newest first: stops after a page, though the plan's estimate names all rows
        OUTBOX + page_two: ROWS,
        f"{OUTBOX}?status=pending": 200,
        f"{OUTBOX}?status=consumed": ROWS,
        f"{OUTBOX}?status=ready": 200,
        f"{OUTBOX}?status=waiting": 200,
        f"{OUTBOX}?status=unscheduled": 200,
        f"{OUTBOX}?status=consumed&event_type=tasks.task.completed": 60,
        f"{OUTBOX}?status=dead&event_type={EVENT_TYPE}": 200,
        DEAD: 200,
        DEAD + dead_two: 200,
        "/admin/chat/chatrun/?state=failed": 200,
        "/admin/chat/chatrun/?state=finished": ROWS,
        "/admin/accounts/tokensession/?q=user-7": 400,
    }
    for url, at_most in in_order.items():
        _, lines = read_by_index(client, url, at_most=at_most)
        assert not sorts(lines), (url, sorts(lines))
    found = {
        f"{OUTBOX}?q={row.event_id}": 60,
        f"{OUTBOX}?q={row.pk}": 60,
        f"{OUTBOX}?q=key-7": 60,
        f"{OUTBOX}?q=req-7": 60,
        f"{OUTBOX}{row.pk}/change/": 60,
        f"{OUTBOX}key/?key=key-0": 60,
        f"{DEAD}?q=key-0": 60,
        f"/admin/chat/agentchat/?q={chat.chat_id}": 60,
        "/admin/chat/agentchat/?q=user-7": 100,
        "/admin/chat/chatrun/": 100,
        f"/admin/chat/chatrun/?q={chat.chat_id}": 60,
        "/admin/chat/chatrun/?q=user-7": 400,
        f"/admin/chat/chathistory/?q={chat.chat_id}": 60,
        "/admin/chat/chathistory/?q=e-7": 60,
        f"/admin/chat/agentchat/{chat.pk}/change/": 60,
    }
    for url, at_most in found.items():
        read_by_index(client, url, at_most=at_most)


def test_overview_reads_index_entries_only():
    fill()
    client = operator_client("outbox.view_outboxmessage")
    dead = OutboxMessage.objects.filter(status=Status.DEAD).first()
    KeyHold.objects.create(message_key=dead.message_key, head_id=dead.pk, since=utc_now())
    _, lines = read_by_index(client, "/admin/overview/", at_most=ROWS)
    assert not sorts(lines), sorts(lines)


def test_depth_is_counted_from_indexes_alone():
    fill()
    with CaptureQueriesContext(connection) as captured:
        depth_and_lag(now=utc_now())
    assert len(captured) == 1
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + captured[0]["sql"])
        names = [column[0] for column in cursor.description]
        lines = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
    read = [line for line in lines if line["table"] and not line["table"].startswith("<")]
    assert len(read) == 12, lines
    assert all(line["key"] for line in read), lines
    assert not [line for line in read if "filesort" in (line["Extra"] or "")], lines
    # the newest row, the moments of three states, and the leases are read from rows; all else is counted
    from_rows = [line for line in read if "Using index" not in (line["Extra"] or "")]
    assert len(from_rows) <= 5, from_rows
