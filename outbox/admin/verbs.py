"""What the pages of the operators' verbs share: who may do what, the words for it, the reason, the admin's log."""

from dataclasses import dataclass
from typing import Any, Protocol, cast

from django import forms
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core import signing
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextareaWidget

from outbox import dead_letters
from outbox.models import OperatorAction
from outbox.operator_actions import REASON_LENGTH
from outbox.selection import Selection
from smartflow.kernel.errors import DomainError

PERMISSIONS = {
    OperatorAction.Verb.REQUEUE: "outbox.requeue_outboxmessage",
    OperatorAction.Verb.DISCARD: "outbox.discard_outboxmessage",
    OperatorAction.Verb.PAUSE: "outbox.pause_outboxmessage",
    OperatorAction.Verb.RESUME: "outbox.pause_outboxmessage",
}
_SALT = "outbox.selection"


class Move(Protocol):
    """The form of requeue and discard in outbox/dead_letters.py."""

    def __call__(
        self, *, selection: Selection, by: str, reason: str, now: Any, user_id: int | None = None
    ) -> OperatorAction: ...


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What an operator does to dead letters, and the words for it."""

    name: str
    move: Move
    title: Any
    warning: Any
    button: Any
    everything: Any

    @property
    def permission(self) -> str:
        """What the operator needs beside seeing the rows."""
        return PERMISSIONS[OperatorAction.Verb(self.name)]


REQUEUE = Verb(
    name="requeue",
    move=dead_letters.requeue,
    title=_("Requeue dead letters"),
    warning=_(
        "A requeued event is handled after everything that was already handled: "
        "it may arrive after later events of the same key."
    ),
    button=_("Requeue"),
    everything=_("Requeue all that fit …"),
)
DISCARD = Verb(
    name="discard",
    move=dead_letters.discard,
    title=_("Discard dead letters"),
    warning=_(
        "A discarded event is never handled: what it asked for does not happen. The row stays visible with your reason."
    ),
    button=_("Discard"),
    everything=_("Discard all that fit …"),
)
VERBS = (REQUEUE, DISCARD)


class ReasonForm(forms.Form):
    """Why: it is what the next operator reads."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=REASON_LENGTH,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
        error_messages={"required": _("Say why: it is what the next operator reads.")},
    )


def check_permission(*, request: HttpRequest, permission: str) -> None:
    """Raises: PermissionDenied unless the operator has it and may see the rows."""
    if not request.user.has_perms([permission, "outbox.view_outboxmessage"]):
        raise PermissionDenied


def sealed(*, selection: Selection) -> str:
    """Return the selection for a hidden field; what was confirmed is what is done."""
    return signing.dumps(selection.to_json(), salt=_SALT, compress=True)


def unsealed(*, text: str) -> Selection:
    """Return what `sealed` was given. Raises: SuspiciousOperation for anything else."""
    try:
        return Selection.from_json(signing.loads(text, salt=_SALT))
    except signing.BadSignature as error:
        raise SuspiciousOperation("The selection was not made by this site") from error


def log_action(*, action: OperatorAction, request: HttpRequest) -> None:
    """Write a line into the log of everything operators do, which leads to the action's own page."""
    LogEntry.objects.create(
        user_id=cast(int, request.user.pk),
        content_type=ContentType.objects.get_for_model(OperatorAction),
        object_id=str(action.pk),
        object_repr=f"{action.verb}: {action.done_count} of {action.expected_count}"[:200],
        action_flag=CHANGE,
        change_message=f"{action.verb} {action.done_count} of {action.expected_count}. Reason: {action.reason}",
    )


def words_of(*, error: DomainError) -> Any:
    """Return an anticipated failure in the operator's language."""
    return _(error.message)
