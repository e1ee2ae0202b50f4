"""Give conversations from before the timeline and the ledger theirs, from their runs and messages."""

from django.db import migrations

ASKED = """
INSERT INTO agent_timeline_events (chat_id, user_id, seq, kind, role, content, payload, tokens_consumed, run_id, created_at)
SELECT chat_id, user_id, turn_no * 2 - 1, 'user_text', 'user', input_text, {asked}, 0, id, created_at FROM chat_runs
"""
SAID = """
INSERT INTO agent_timeline_events (chat_id, user_id, seq, kind, role, content, payload, tokens_consumed, run_id, created_at)
SELECT chat_id, user_id, turn_no * 2, 'assistant_text', 'assistant', output_text, {said}, total_tokens, id, finished_at
FROM chat_runs WHERE is_live IS NULL
"""
LEDGER = """
INSERT INTO token_ledger (entry_key, user_id, conversation_id, run_id, kind, purpose, model, input_tokens, cached_tokens,
 output_tokens, reasoning_tokens, total_tokens, is_estimated, reason, request_id, created_at)
SELECT source_event_id, user_id, chat_id, run_id, 'usage', 'answer', '', 0, 0, 0, 0, tokens_consumed, 0, '', '', created_at
FROM chat_histories WHERE tokens_consumed > 0
"""


def fill(apps, schema_editor):
    asked = "json_object('run_id', id, 'turn_no', turn_no)"
    said = (
        "json_object('run_id', id, 'state', state, 'model', model, 'turn_no', turn_no, 'variant_no', 1,"
        " 'error_code', error_code)"
    )
    # Not schema_editor.execute: within a transaction, MariaDB's refuses every statement.
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(ASKED.format(asked=asked))
        cursor.execute(SAID.format(said=said))
        # the last entry's: the answer of a run that is live now comes right behind its question
        cursor.execute(
            "UPDATE agent_chats SET timeline_seq = COALESCE("
            "(SELECT MAX(seq) FROM agent_timeline_events WHERE agent_timeline_events.chat_id = agent_chats.chat_id), 0)"
        )
        cursor.execute("UPDATE chat_runs SET has_spoken = 1 WHERE output_text <> ''")
        cursor.execute(LEDGER)


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0004_timeline_variants_and_snapshots"),
        ("accounts", "0004_token_ledger_and_quota"),
    ]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
