"""Writers of one conversation at once: the seq has neither gap nor repeat, and the newest state stays."""

import pytest
from django.db import transaction

from chat import operations
from chat.contracts import Role, TimelineKind
from chat.models import AgentChat, AgentStateSnapshot, AgentTimelineEvent
from chat.operations.conversations import lock_own
from chat.operations.timeline import NewEntry, append_timeline
from outbox.database_errors import repeat_on_conflict
from smartflow.events import AgentStateSnapshotPersist
from smartflow.kernel.clock import utc_now
from tests.integration.chat.turns import talk
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)
WRITERS, APPENDS = 20, 10


def test_two_hundred_appends_at_once_leave_neither_gap_nor_repeat(alice):
    conversation_id = talk(alice, ("One", "1"))

    def append(writer, number):
        with transaction.atomic():
            chat = lock_own(user_id=alice.pk, conversation_id=conversation_id)
            entry = NewEntry(kind=TimelineKind.TOOL_RESULT, role=Role.TOOL, content=f"{writer}:{number}")
            append_timeline(chat=chat, entries=[entry], now=utc_now())

    def write(writer):
        for number in range(APPENDS):
            repeat_on_conflict(lambda number=number: append(writer, number))

    assert run_at_once(*[lambda writer=writer: write(writer) for writer in range(WRITERS)]) == [None] * WRITERS

    rows = list(AgentTimelineEvent.objects.order_by("seq").values_list("seq", "content"))
    assert [seq for seq, _content in rows] == list(range(1, 3 + WRITERS * APPENDS))
    assert AgentChat.objects.get().timeline_seq == 2 + WRITERS * APPENDS
    for writer in range(WRITERS):
        own = [content for _seq, content in rows if content.startswith(f"{writer}:")]
        assert own == [f"{writer}:{number}" for number in range(APPENDS)]


def test_the_newest_of_states_that_are_written_at_once_stays(alice):
    conversations = [talk(alice, ("One", "1")) for _ in range(5)]

    def record(revision):
        # two consumers rarely meet the conversations in the same order
        order = conversations if revision % 2 else conversations[::-1]
        events = [
            AgentStateSnapshotPersist(
                user_id=alice.pk,
                conversation_id=conversation_id,
                phase="chatting",
                snapshot_json=f'{{"version": 1, "revision": {revision}}}',
                revision=revision,
            )
            for conversation_id in order
        ]

        def write():
            with transaction.atomic():
                operations.record_snapshots(events=events, now=utc_now())

        repeat_on_conflict(write)

    for start in range(0, 80, 8):
        revisions = range(start, start + 8)
        assert run_at_once(*[lambda revision=revision: record(revision) for revision in revisions]) == [None] * 8
        kept = AgentStateSnapshot.objects.values_list("revision", "snapshot_json")
        assert set(kept) == {(start + 7, f'{{"version": 1, "revision": {start + 7}}}')}
        assert len(kept) == 5
