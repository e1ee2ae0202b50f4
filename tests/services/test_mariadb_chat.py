"""What conversations ask of MariaDB itself: pages that read what they show, however long and many they are."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat import operations, queries
from chat.models import AgentChat, AgentTimelineEvent
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from tests.integration.chat.turns import ask

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]
ENTRIES, CONVERSATIONS = 6000, 3000


@pytest.fixture(autouse=True)
def only_mariadb():
    if connection.vendor != "mysql":
        pytest.skip("DATABASE_URL is not MariaDB's")


@pytest.fixture
def crowd(alice, bob):
    """One long conversation of Alice's among many short ones, her own and Bob's."""
    now = utc_now()
    chats = [
        AgentChat(
            chat_id=new_uuid(),
            user=bob if number % 5 == 0 else alice,
            title="t",
            last_message_at=now,
            status="active" if number % 2 else "archived",
            deleted_at=now if number % 3 == 0 else None,
        )
        for number in range(CONVERSATIONS)
    ]
    AgentChat.objects.bulk_create(chats, batch_size=1000)
    chats = list(AgentChat.objects.order_by("id"))  # MySQL tells no ids of many rows
    long = next(chat for chat in chats if chat.user_id == alice.pk and chat.deleted_at is None)
    entries = [
        AgentTimelineEvent(
            chat=chat, user_id=chat.user_id, seq=seq, kind="user_text", role="user", content="x" * 80, created_at=now
        )
        for chat in chats
        for seq in range(1, ENTRIES + 1 if chat is long else 4)
    ]
    AgentTimelineEvent.objects.bulk_create(entries, batch_size=2000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE agent_chats, agent_timeline_events")
        cursor.fetchall()
    AgentChat.objects.filter(chat_id=long.chat_id).update(timeline_seq=ENTRIES)
    return long.chat_id


def rows_read():
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(count) for name, count in cursor.fetchall() if not name.endswith("deleted"))


def cost(read):
    before = rows_read()
    found = read()
    # what SHOW STATUS reads of its own table
    own = rows_read()
    return found, own - before - (rows_read() - own)


@pytest.mark.parametrize("place", [{}, {"before_seq": 3000}, {"before_seq": 60}, {"after_seq": 3000}, {"after_seq": 0}])
def test_a_page_of_the_timeline_reads_what_it_shows(alice, crowd, place):
    items, rows = cost(lambda: queries.list_timeline(user_id=alice.pk, conversation_id=crowd, limit=50, **place))

    assert len(items) == 50
    # an entry of the index, its row, and the row once more for the order; MySQL writes the entries down between
    assert rows <= (160 if connection.mysql_is_mariadb else 205)


def test_latest_messages_read_what_they_show(crowd):
    messages, rows = cost(lambda: queries.list_latest_messages(conversation_id=crowd, limit=8, most_characters=80))

    assert (len(messages), rows <= 12) == (8, True)


@pytest.mark.parametrize("status", ["", "active"])
def test_the_list_reads_rows_of_its_page_only(alice, crowd, status):
    page, rows = cost(lambda: queries.list_conversations(user_id=alice.pk, page=2, page_size=20, status=status))

    assert len(page.list) == 20
    own = AgentChat.objects.filter(user=alice, deleted_at=None).count()
    assert page.total == (own if not status else own / 2)
    # counted and found in the index, twice at most; of other users' and of deleted ones nothing is read
    assert rows <= 2 * own + 100


def test_the_number_of_conversations_is_counted_in_the_index(alice, crowd):
    with CaptureQueriesContext(connection) as captured:
        queries.list_conversations(user_id=alice.pk, page=1, page_size=20, status="active")
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + captured[0]["sql"])
        explained = str(cursor.fetchall())

    assert "idx_user_shown" in explained
    assert "Using index" in explained
    assert "filesort" not in explained


def test_a_turn_reads_as_little_in_a_long_conversation(alice, crowd):
    _run, rows = cost(lambda: ask(alice, conversation_id=crowd))

    assert rows <= 40


def test_titles_that_are_due_are_found_by_their_index(alice, crowd):
    claimed, rows = cost(lambda: operations.claim_titles(now=utc_now(), limit=16))

    assert (claimed, rows <= 3) == ([], True)
