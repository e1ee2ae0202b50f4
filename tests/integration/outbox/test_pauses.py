"""outbox/pauses.py: relays leave a paused type alone, and its rows go on in their order."""

from datetime import timedelta

import pytest

from outbox.claim import Share
from outbox.holds import paused_types, release_held_rows
from outbox.models import OperatorAction, PausedType
from outbox.operator_actions import ReasonMissing
from outbox.pauses import EventTypeUnknown, TypeAlreadyPaused, TypeNotPaused, pause_type, resume_type
from outbox.relay import claim_rows
from outbox.testing import drain
from tests.outbox_rows import EVENT_TYPE, NOW, append, row_of

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(minutes=1)


def pause(event_type: str = EVENT_TYPE, reason: str = "a bad deploy"):
    return pause_type(event_type=event_type, by="alice", reason=reason, now=NOW)


def resume(event_type: str = EVENT_TYPE, reason: str = "mended"):
    return resume_type(event_type=event_type, by="bob", reason=reason, now=LATER)


def claim(now=NOW):
    return claim_rows(limit=50, lease_seconds=10, now=now, share=Share(paused=paused_types())).rows


def test_pause_type_holds_the_rows_and_resume_type_lets_them_go_in_order(handler):
    ids = [append("a"), append("b"), append("a")]
    pause()
    assert claim() == []
    assert release_held_rows(now=NOW) == 0

    resume()
    assert release_held_rows(now=LATER) == 3
    drain(now=LATER)
    assert [event_id for event_id in handler.event_ids if event_id != row_of(ids[1]).event_id] == [
        row_of(ids[0]).event_id,
        row_of(ids[2]).event_id,
    ]


def test_pause_and_resume_write_who_when_and_why():
    pause()
    paused = PausedType.objects.get()
    assert (paused.event_type, paused.by, paused.reason, paused.paused_at) == (EVENT_TYPE, "alice", "a bad deploy", NOW)
    resume()
    assert not PausedType.objects.exists()
    entries = OperatorAction.objects.order_by("id").values_list("verb", "by", "reason", "requested_at", "state")
    assert list(entries) == [
        ("pause", "alice", "a bad deploy", NOW, "done"),
        ("resume", "bob", "mended", LATER, "done"),
    ]
    assert {action.selection["event_type"] for action in OperatorAction.objects.all()} == {EVENT_TYPE}


def test_pause_type_refuses_a_second_pause_and_keeps_the_first_reason():
    pause()
    with pytest.raises(TypeAlreadyPaused):
        pause(reason="another")
    assert PausedType.objects.get().reason == "a bad deploy"
    assert OperatorAction.objects.count() == 1


def test_pause_type_refuses_a_type_that_no_event_has():
    with pytest.raises(EventTypeUnknown):
        pause("no.such.type")


def test_resume_type_refuses_what_is_not_paused():
    with pytest.raises(TypeNotPaused):
        resume()
    assert not OperatorAction.objects.exists()


@pytest.mark.parametrize("call", [pause, resume])
def test_pause_and_resume_refuse_without_a_reason(call):
    with pytest.raises(ReasonMissing):
        call(reason=" ")
