"""The parked rows, oldest first, and the two things an operator may do about them: requeue and discard.

Both show on a page of their own how many rows fit and what may break, and ask for a reason; many rows are moved in the
background, which that action's page shows (operator_actions.py). The verbs themselves are in outbox/dead_letters.py.
"""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from outbox.admin.dead_letter_list import FILTERS, DeadLetterChangeList, selection_of
from outbox.admin.display import error_excerpt, may_read_payload
from outbox.admin.rows import OutboxRowAdmin
from outbox.admin.verbs import DISCARD, REQUEUE, VERBS, ReasonForm, Verb, check_permission, log_action, sealed, unsealed
from outbox.database_clock import database_now
from outbox.models import DeadLetter, OperatorAction, OutboxMessage, Status
from outbox.selection import Selection, freeze, order_risk, preview_dead_letters
from smartflow.api.keyset_admin import operator_action

ROWS_SHOWN = 50


@admin.register(DeadLetter)
class DeadLetterAdmin(OutboxRowAdmin):
    """Rows with status `dead`, by idx_outbox_status_id."""

    keyset = ("id",)
    fixed_status = Status.DEAD
    list_display = ("row_id", "state", "biz_type", "short_key", "age", "error", "discard_reason")
    list_filter = FILTERS
    list_filter_submit = True
    list_before_template = "outbox/dead_letter_verbs.html"
    actions = ("requeue", "discard")
    actions_on_top = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        return super().get_queryset(request).filter(status=Status.DEAD)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[DeadLetterChangeList]:
        return DeadLetterChangeList

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("outbox.view_outboxmessage")

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may send dead letters round again."""
        return request.user.has_perm(REQUEUE.permission)

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may give dead letters up."""
        return request.user.has_perm(DISCARD.permission)

    def get_urls(self) -> list[URLPattern]:
        pages = [
            path(
                f"{verb.name}/",
                self.admin_site.admin_view(self._page_of(verb)),
                name=f"outbox_deadletter_{verb.name}",
            )
            for verb in VERBS
        ]
        return [*pages, *super().get_urls()]

    def list_verbs(self, request: HttpRequest, changelist: DeadLetterChangeList) -> tuple[dict[str, Any], ...]:
        """Return what the operator may do with everything that the list's filters let through."""
        if changelist.query:
            return ()
        return tuple(
            {
                "name": verb.name,
                "title": verb.everything,
                "url": reverse(f"admin:outbox_deadletter_{verb.name}") + changelist.get_query_string(),
            }
            for verb in VERBS
            if request.user.has_perm(verb.permission)
        )

    @operator_action(description=_("Requeue: send round again …"), permissions=["requeue"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse:
        return self._ask(request, REQUEUE, _ticked(request), ReasonForm())

    @operator_action(description=_("Discard: give up …"), permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse:
        return self._ask(request, DISCARD, _ticked(request), ReasonForm())

    def _page_of(self, verb: Verb) -> Any:
        def page(request: HttpRequest) -> HttpResponse:
            check_permission(request=request, permission=verb.permission)
            if request.method != "POST":
                return self._ask(request, verb, _asked_for(request), ReasonForm())
            selection, form = unsealed(text=request.POST.get("selection", "")), ReasonForm(request.POST)
            if not form.is_valid():
                return self._ask(request, verb, selection, form)
            return self._move(request, verb, selection, form.cleaned_data["reason"])

        return page

    def _ask(self, request: HttpRequest, verb: Verb, selection: Selection, form: ReasonForm) -> HttpResponse:
        """Show the dry run: how many rows fit, the first of them, what may break."""
        selection = freeze(selection=selection, now=database_now())
        preview = preview_dead_letters(selection=selection)
        rows = self.get_queryset(request).filter(pk__in=preview.ids[:ROWS_SHOWN]).order_by("id")
        context = {
            **self.admin_site.each_context(request),
            "title": verb.title,
            "opts": self.opts,
            "media": self.media,
            "verb": verb,
            "form": form,
            "preview": preview,
            "looked_at": f"{preview.looked_at:,}",
            "selection": selection,
            "sealed": sealed(selection=selection),
            "rows": [(row, error_excerpt(row, is_whole=may_read_payload(request))) for row in rows],
            "risk": order_risk(preview=preview),
            "post_to": reverse(f"admin:outbox_deadletter_{verb.name}"),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "outbox/reason.html", context)

    def _move(self, request: HttpRequest, verb: Verb, selection: Selection, reason: str) -> HttpResponse:
        by, user_id = request.user.get_username(), request.user.pk
        action = verb.move(selection=selection, by=by, user_id=user_id, reason=reason, now=database_now())
        log_action(action=action, request=request)
        if action.state == OperatorAction.State.DONE:
            self.message_user(request, _told(action), messages.SUCCESS if action.done_count else messages.WARNING)
            back = {"discarded": "yes"} if selection.is_discarded else {}
            parts = {"event_type": selection.event_type, "error": selection.error, "key": selection.key, **back}
            query = urlencode({name: value for name, value in parts.items() if value})
            return redirect(reverse("admin:outbox_deadletter_changelist") + (f"?{query}" if query else ""))
        if not request.user.has_perm("outbox.view_operatoraction"):
            self.message_user(request, gettext("The rows are moved in the background."), messages.SUCCESS)
            return redirect("admin:outbox_deadletter_changelist")
        return redirect("admin:outbox_operatoraction_change", action.pk)


def _asked_for(request: HttpRequest) -> Selection:
    try:
        return selection_of(request=request)
    except IncorrectLookupParameters as error:  # which a change list alone answers
        raise Http404 from error


def _told(action: OperatorAction) -> str:
    moved = action.done_count
    if action.verb == OperatorAction.Verb.REQUEUE:
        text = ngettext("%(moved)d dead letter was requeued.", "%(moved)d dead letters were requeued.", moved)
    else:
        text = ngettext("%(moved)d dead letter was discarded.", "%(moved)d dead letters were discarded.", moved)
    text %= {"moved": moved}
    others = gettext("The others had been moved meanwhile.")
    return f"{text} {others}" if moved < action.expected_count else text


def _ticked(request: HttpRequest) -> Selection:
    # From the form and not from the queryset: a forged "select across" would stand for every row of the table.
    ticked = request.POST.getlist(ACTION_CHECKBOX_NAME)
    ids = {int(value) for value in ticked if value.isascii() and value.isdigit() and len(value) < 19}
    return Selection(ids=tuple(sorted(ids)))
