"""The parked rows, oldest first, and the two things an operator may do about them: requeue and discard.

Both ask for a reason on a page of their own, say what they may break, and leave an entry in the admin log: who, when,
why, how many. The rows are moved by outbox/dead_letters.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextareaWidget

from outbox import dead_letters, queries
from outbox.admin.display import error_excerpt
from outbox.admin.filters import DiscardedFilter, EventTypeFilter
from outbox.admin.rows import OutboxRowAdmin
from outbox.models import DeadLetter, OutboxMessage, Status
from smartflow.api.keyset_admin import operator_action
from smartflow.kernel.clock import utc_now

REASON_LENGTH = 255
IDS_IN_LOG = 100


class MoveDeadLetters(Protocol):
    """The form of outbox/dead_letters.py: moves what it can and returns how many rows that were."""

    def __call__(self, *, ids: Sequence[int], by: str, reason: str, now: datetime) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What an operator does to dead letters, and the words for it."""

    name: str
    permission: str
    move: MoveDeadLetters
    title: Any
    warning: Any
    button: Any


REQUEUE = Verb(
    name="requeue",
    permission="outbox.requeue_outboxmessage",
    move=dead_letters.requeue_dead_letters,
    title=_("Requeue dead letters"),
    warning=_(
        "A requeued event is handled after everything that was already handled: "
        "it may arrive after later events of the same key."
    ),
    button=_("Requeue"),
)
DISCARD = Verb(
    name="discard",
    permission="outbox.discard_outboxmessage",
    move=dead_letters.discard_dead_letters,
    title=_("Discard dead letters"),
    warning=_(
        "A discarded event is never handled: what it asked for does not happen. The row stays visible with your reason."
    ),
    button=_("Discard"),
)


class ReasonForm(forms.Form):
    """Why: it is what the next operator reads."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=REASON_LENGTH,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
        error_messages={"required": _("Say why: it is what the next operator reads.")},
    )


@admin.register(DeadLetter)
class DeadLetterAdmin(OutboxRowAdmin):
    """Rows with status `dead`, by idx_outbox_status_id."""

    keyset = ("id",)
    fixed_status = Status.DEAD
    list_display = ("row_id", "state", "biz_type", "short_key", "age", "error", "discard_reason")
    list_filter = (DiscardedFilter, EventTypeFilter)
    actions = ("requeue", "discard")
    actions_on_top = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        return super().get_queryset(request).filter(status=Status.DEAD)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("outbox.view_outboxmessage")

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may send dead letters round again."""
        return request.user.has_perm(REQUEUE.permission)

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may give dead letters up."""
        return request.user.has_perm(DISCARD.permission)

    @operator_action(description=_("Requeue: send round again …"), permissions=["requeue"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._ask_then_move(request, queryset, REQUEUE)

    @operator_action(description=_("Discard: give up …"), permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._ask_then_move(request, queryset, DISCARD)

    def _ask_then_move(self, request: HttpRequest, queryset: QuerySet[DeadLetter], verb: Verb) -> HttpResponse | None:
        ids = _selected_ids(request)
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if form.is_valid():
            moved = move_and_log(verb=verb, ids=ids, request=request, reason=form.cleaned_data["reason"])
            self._tell(request, verb, moved=moved, asked=len(ids))
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": verb.title,
            "opts": self.opts,
            "media": self.media,
            "verb": verb,
            "form": form,
            "rows": [(row, error_excerpt(row)) for row in queryset.filter(pk__in=ids)],
            "overtaken": len(queries.list_overtaken_ids(ids=ids)) if verb is REQUEUE else 0,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "outbox/reason.html", context)

    def _tell(self, request: HttpRequest, verb: Verb, *, moved: int, asked: int) -> None:
        if verb is REQUEUE:
            text = ngettext("%(moved)d dead letter was requeued.", "%(moved)d dead letters were requeued.", moved)
        else:
            text = ngettext("%(moved)d dead letter was discarded.", "%(moved)d dead letters were discarded.", moved)
        text %= {"moved": moved}
        if moved < asked:
            text += " " + gettext("The others had been moved meanwhile.")
        self.message_user(request, text, messages.SUCCESS if moved else messages.WARNING)


def move_and_log(*, verb: Verb, ids: Sequence[int], request: HttpRequest, reason: str) -> int:
    """
    Move the rows and write who did it, why and to how many.

    Transaction: opens the one, so that rows never move without their log entry.
    """
    by = request.user.get_username()
    with transaction.atomic():
        moved = verb.move(ids=ids, by=by, reason=reason, now=utc_now())
        listed = ", ".join(str(row_id) for row_id in ids[:IDS_IN_LOG])
        LogEntry.objects.create(
            user_id=cast(int, request.user.pk),
            content_type=ContentType.objects.get_for_model(OutboxMessage),
            object_id=str(ids[0]) if len(ids) == 1 else "",
            object_repr=f"{verb.name}: {moved} of {len(ids)} dead letters",
            action_flag=CHANGE,
            change_message=f"{verb.name} {moved} of {len(ids)} dead letters. Reason: {reason}. Rows: {listed}",
        )
    return moved


def _selected_ids(request: HttpRequest) -> list[int]:
    # From the form and not from the queryset: a forged "select across" would stand for every row of the table.
    ticked = request.POST.getlist(ACTION_CHECKBOX_NAME)
    return sorted({int(value) for value in ticked if value.isascii() and value.isdigit() and len(value) < 19})
