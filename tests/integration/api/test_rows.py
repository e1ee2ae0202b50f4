"""Statements that are put together once say the same as the models."""

from datetime import UTC, datetime

import pytest
from django.db import IntegrityError

from chat.models import AgentChat, ChatRun
from smartflow.api.rows import RowReader, execute, fetch, insert_row, insert_rows, moment, read_moment
from smartflow.kernel.ids import new_uuid

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 9, 1, 8, 30, 0, 123456, tzinfo=UTC)


def chat_values(user, **more):
    values = {"chat_id": new_uuid(), "user_id": user.pk, "created_at": NOW, "updated_at": NOW}
    return {**values, **more}


def columns(row):
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_insert_row_writes_what_the_model_would_defaults_included(alice):
    values = chat_values(alice, last_message_at=NOW, context_token_stats={"total": 7, "wörter": ["a'b%s\\"]})
    pk = insert_row(AgentChat, **values)
    by_model = AgentChat(**{**values, "chat_id": new_uuid()})
    by_model.save()

    written, expected = columns(AgentChat.objects.get(pk=pk)), columns(by_model)
    for own in ("id", "chat_id", "created_at", "updated_at"):
        assert written.pop(own)
        assert expected.pop(own)
    assert written == expected


def test_insert_row_keeps_texts_as_they_are(alice):
    title = "100% 'of' \"it\" \\ %s 😀 ;--"
    pk = insert_row(AgentChat, **chat_values(alice, title=title))

    assert AgentChat.objects.get(pk=pk).title == title


def test_insert_row_refuses_what_leaves_a_column_empty(alice):
    with pytest.raises(TypeError, match=r"AgentChat\.created_at"):
        insert_row(AgentChat, chat_id=new_uuid(), user_id=alice.pk, updated_at=NOW)
    with pytest.raises(TypeError, match="no colour"):
        insert_row(AgentChat, **chat_values(alice, colour="red"))


def test_insert_row_raises_integrity_error_for_a_second_one(alice):
    values = chat_values(alice)
    insert_row(AgentChat, **values)

    with pytest.raises(IntegrityError):
        insert_row(AgentChat, **values)


def test_insert_rows_takes_one_statement_for_many(alice, django_assert_num_queries):
    with django_assert_num_queries(1):
        insert_rows(AgentChat, [chat_values(alice) for _ in range(9)])

    assert AgentChat.objects.count() == 9


def test_find_returns_the_row_as_the_model_does(alice):
    values = chat_values(alice, context_token_stats={"total": 1}, title_due_at=NOW)
    pk = insert_row(AgentChat, **values)
    run_id = new_uuid()
    insert_row(
        ChatRun,
        id=run_id,
        chat_id=values["chat_id"],
        user_id=alice.pk,
        turn_no=1,
        input_text="Q",
        model="worker",
        output_events=[{"at": 0, "data": {"a": None}}],
        created_at=NOW,
    )

    found = RowReader(AgentChat, "id = %s", is_locking=True).find(pk)
    assert columns(found) == columns(AgentChat.objects.get(pk=pk))
    run = RowReader(ChatRun, "id = %s AND is_live = 1").find(run_id)
    assert columns(run) == columns(ChatRun.objects.get())
    assert RowReader(AgentChat, "id = %s").find(pk + 1) is None


def test_execute_tells_how_many_rows_it_found_and_fetch_returns_the_first(alice):
    pk = insert_row(AgentChat, **chat_values(alice))

    assert execute("UPDATE agent_chats SET title_due_at = %s WHERE id = %s", moment(NOW), pk) == 1
    assert execute("UPDATE agent_chats SET title_due_at = %s WHERE id = %s", moment(None), pk + 1) == 0
    assert AgentChat.objects.get(pk=pk).title_due_at == NOW
    assert fetch("SELECT user_id FROM agent_chats WHERE id = %s", pk) == (alice.pk,)
    assert fetch("SELECT user_id FROM agent_chats WHERE id = %s", pk + 1) is None


def test_read_moment_returns_what_moment_wrote(alice):
    pk = insert_row(AgentChat, **chat_values(alice, title_due_at=NOW))

    found = fetch("SELECT title_due_at, deleted_at FROM agent_chats WHERE id = %s", pk)
    assert [read_moment(at) for at in found] == [NOW, None]
