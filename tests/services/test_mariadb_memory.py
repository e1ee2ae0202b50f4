"""What the long-term memory asks of MariaDB: pages that read what they show, and no index twice."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat import memory_queries as queries
from chat.memory_contracts import AuditAction, AuthorKind, MemoryFilter, MemoryStatus, MemoryType
from chat.memory_models import MemoryAuditLog, MemoryItem
from tests.admin_rows import operator_client
from tests.factories import make_user
from tests.memory_rows import NOW
from tests.services.test_mariadb_tasks import rows_read

pytestmark = [
    pytest.mark.services,
    pytest.mark.django_db(transaction=True),  # ANALYZE TABLE commits
    pytest.mark.skipif(connection.vendor != "mysql", reason="DATABASE_URL names no MariaDB"),
]
OF_ALICE, OTHERS, OF_OTHERS = 2_500, 20, 100
PAGE = 50
CONVERSATION = "c" * 36


@pytest.fixture
def alice():
    """Alice with many items, a few of them deleted, among users with a few."""
    alice = make_user("alice")
    users = [make_user(f"u{number}") for number in range(OTHERS)]
    rows = [(alice, number) for number in range(OF_ALICE)]
    rows += [(user, number) for user in users for number in range(OF_OTHERS)]
    MemoryItem.objects.bulk_create((_item(user, number) for user, number in rows), batch_size=1000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE memory_items")
        cursor.fetchall()
    return alice


def _item(user, number):
    at = NOW + timedelta(seconds=number)
    return MemoryItem(
        user=user,
        conversation_id=CONVERSATION if number % 4 == 0 else None,
        memory_type=list(MemoryType)[number % 3],
        title=f"Title {number}",
        content="x" * 200,
        content_hash="0" * 64,
        confidence=0.95,
        importance=0.9,
        sensitivity_level=0,
        is_explicit=True,
        status=list(MemoryStatus)[number % 10 if number % 10 < 3 else 0],
        created_at=at,
        updated_at=at,
    )


# Each with how much it may read a page: one item in ten is deleted and one in three is a fact, and the index is read
# past the others.
LISTS = [
    (MemoryFilter(), 3 * PAGE),
    (MemoryFilter(conversation_id=CONVERSATION), 3 * PAGE),
    (MemoryFilter(memory_types=("fact",)), 6 * PAGE),
    (MemoryFilter(statuses=("deleted",)), 13 * PAGE),
]


def explain(sql):
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + sql)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


# Many pages in one test: emptying every table after each takes longer than all of them.
def test_list_pages_read_little_more_than_they_show(alice):
    for wanted, most in LISTS:
        cursor = ""
        for number in range(4):
            page, touched = rows_read(
                lambda wanted=wanted, cursor=cursor: queries.list_memory_items(
                    user_id=alice.pk, wanted=wanted, limit=PAGE, cursor=cursor
                )
            )
            assert len(page.items) == PAGE
            assert touched < most, (wanted, number, touched)
            cursor = page.next_cursor


def test_no_index_of_the_memory_is_the_start_of_another(db):
    for table in ("memory_items", "memory_audit_logs", "memory_user_settings"):
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, table)
        # of a foreign key the database makes an index of its own where no other begins with its column
        indexes = [tuple(one["columns"]) for one in found.values() if one["index"] or one["primary_key"]]
        starts = [one for one in indexes for other in indexes if one != other and other[: len(one)] == one]
        assert starts == [], table
        assert len(indexes) == len(set(indexes)), table


def _note_all():
    MemoryAuditLog.objects.bulk_create(
        (
            MemoryAuditLog(
                item_id=pk,
                user_id=user_id,
                action=AuditAction.CREATE,
                after={"title": "x"},
                author_kind=AuthorKind.SYSTEM,
                created_at=NOW,
            )
            for pk, user_id in MemoryItem.objects.values_list("pk", "user_id")
        ),
        batch_size=1000,
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE memory_audit_logs")
        cursor.fetchall()


def test_admin_pages_of_items_read_no_more_than_they_show(alice):
    client = operator_client("chat.view_memoryitem")
    kinds = ["", "?status=active", "?status=deleted", "?type=fact", "?status=archived&type=fact", "?q=u7", "?q=alice"]
    for query in kinds:
        first = client.get(f"/admin/chat/memoryitem/{query}").context["cl"]
        for url in (query, first.next_page):
            response, touched = rows_read(lambda url=url: client.get(f"/admin/chat/memoryitem/{url}"))
            assert len(response.context["cl"].result_list) == PAGE
            # a page of 51, its user, the session and the permissions; and nine others before each deleted item, where
            # the database prefers to walk the primary key; a scan would be 4,500
            assert touched < 700, (url, touched)


# Each with how many pages lie before the one in the middle of its list.
DEEP = {
    "?status=active": 30,
    "?status=deleted": 4,
    "?type=fact": 12,
    "?status=active&type=fact": 10,
    "?q=alice": 22,
    "?q=alice&status=active": 15,
    "?q=alice&type=fact": 6,
}


def test_admin_pages_of_items_are_ranges_of_an_index_far_from_the_beginning(alice):
    client = operator_client("chat.view_memoryitem")
    for query, depth in DEEP.items():
        url = query
        for _number in range(depth):
            url = client.get(f"/admin/chat/memoryitem/{url}").context["cl"].next_page
        back = client.get(f"/admin/chat/memoryitem/{url}").context["cl"].previous_page
        for beside in (url, back):
            with CaptureQueriesContext(connection) as captured:
                response, touched = rows_read(lambda beside=beside: client.get(f"/admin/chat/memoryitem/{beside}"))
            assert len(response.context["cl"].result_list) == PAGE
            (sql,) = [one["sql"] for one in captured if "FROM `memory_items`" in one["sql"]]
            (plan,) = explain(sql)
            assert plan["type"] == "range", (beside, plan)
            assert "filesort" not in (plan["Extra"] or ""), (beside, plan)
            # of the user's items three in ten have another status, two in three another type
            assert touched < 300, (beside, touched)


def test_admin_pages_of_changes_read_no_more_than_they_show(alice):
    _note_all()
    item_id = MemoryItem.objects.filter(user=alice)[100].pk
    pages = ["memoryauditlog/", "memoryauditlog/?q=alice", "memoryauditlog/?q=u7"]
    pages += [f"memoryauditlog/?q=%23{item_id}", f"memoryitem/{item_id}/change/", "memoryitem/"]
    for name, more in (("clerk", ()), ("reader", ("chat.view_message_text",))):
        client = operator_client("chat.view_memoryauditlog", "chat.view_memoryitem", *more, username=name)
        for page in pages:
            client.get(f"/admin/chat/{page}")
            response, touched = rows_read(lambda client=client, page=page: client.get(f"/admin/chat/{page}"))
            assert response.status_code == 200
            assert touched < 500, (name, page, touched)
