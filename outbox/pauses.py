"""Event types that relays leave alone for a while: an operator pauses one, and lets it go on.

Only the type's row is written here. Relays look at them once a second, hold the rows of a paused type (claim.py) and
let them go in their order when it goes on (holds.py). Called by the admin and by `manage.py outbox`.
"""

from collections.abc import Collection
from datetime import datetime

from django.db import IntegrityError, transaction

from outbox.models import OperatorAction, PausedType
from outbox.operator_actions import REASON_LENGTH, Asked, check_reason, record_done
from outbox.wakeup import wake_after_commit
from smartflow.events import EVENT_TYPES
from smartflow.kernel.errors import Conflict, NotFound
from smartflow.kernel.text import noop as _

Verb = OperatorAction.Verb


class EventTypeUnknown(NotFound):
    """No event of the catalog has this type."""

    message = _("There is no such event type.")


class TypeAlreadyPaused(Conflict):
    """The first reason stands."""

    message = _("This event type is paused already.")


class TypeNotPaused(Conflict):
    """There is nothing to let go on."""

    message = _("This event type is not paused.")


def check_type(*, event_type: str, is_to_pause: bool, paused: Collection[str]) -> None:
    """Raises: EventTypeUnknown, TypeAlreadyPaused or TypeNotPaused, as the change itself would."""
    if is_to_pause and event_type not in EVENT_TYPES:
        raise EventTypeUnknown(event_type)
    if is_to_pause and event_type in paused:
        raise TypeAlreadyPaused(event_type)
    if not is_to_pause and event_type not in paused:
        raise TypeNotPaused(event_type)


def pause_type(*, event_type: str, by: str, reason: str, now: datetime, user_id: int | None = None) -> OperatorAction:
    """
    Pause an event type: within about a second no relay publishes it any more; what is on its way arrives.

    Transaction: its own, one with the record.
    Order:       kept: later events of the same keys wait too, of whatever type they are.
    Raises:      ReasonMissing, EventTypeUnknown, TypeAlreadyPaused.
    """
    check_reason(reason)
    if event_type not in EVENT_TYPES:
        raise EventTypeUnknown(event_type)
    asked = Asked(verb=Verb.PAUSE, by=by, user_id=user_id, reason=reason)
    try:
        with transaction.atomic():
            PausedType.objects.create(
                event_type=event_type, reason=reason.strip()[:REASON_LENGTH], by=by[:150], paused_at=now
            )
            return record_done(asked=asked, now=now, count=1, selection={"event_type": event_type})
    except IntegrityError as error:
        raise TypeAlreadyPaused(event_type) from error


def resume_type(*, event_type: str, by: str, reason: str, now: datetime, user_id: int | None = None) -> OperatorAction:
    """
    Let a paused event type go on: within about a second its rows are published in their order.

    Transaction: its own, one with the record.
    Raises:      ReasonMissing, TypeNotPaused.
    """
    check_reason(reason)
    asked = Asked(verb=Verb.RESUME, by=by, user_id=user_id, reason=reason)
    with transaction.atomic():
        deleted, _by_model = PausedType.objects.filter(event_type=event_type).delete()
        if not deleted:
            raise TypeNotPaused(event_type)
        action = record_done(asked=asked, now=now, count=1, selection={"event_type": event_type})
        wake_after_commit()
    return action
