"""What operators asked for, newest first; the page of one action with its progress; event types and their pauses."""

from typing import Any, cast

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from outbox import pauses
from outbox.admin.verbs import PERMISSIONS, ReasonForm, check_permission, log_action, words_of
from outbox.database_clock import database_now
from outbox.models import OperatorAction, PausedType
from outbox.operator_actions import ActionOver, request_stop
from outbox.registry import blocking_types
from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, coloured_label, column, one_line
from smartflow.events import EVENT_TYPES
from smartflow.kernel.errors import DomainError
from smartflow.kernel.text import bounded

Verb, State = OperatorAction.Verb, OperatorAction.State
COLOURS = {State.WAITING: "info", State.RUNNING: "primary", State.DONE: "success", State.STOPPED: "warning"}
PAUSE_TITLES = {Verb.PAUSE: _("Pause an event type"), Verb.RESUME: _("Let an event type go on")}
PAUSE_WARNINGS = {
    Verb.PAUSE: _("Its events wait from now on, and later events of the same keys behind them, of whatever type."),
    Verb.RESUME: _("What waited is published within about a second, in its order."),
}
# Names of Selection's parts as an operator reads them.
PARTS: dict[str, Any] = {
    "ids": _("rows"),
    "event_type": _("event type"),
    "key": _("key"),
    "error": _("error"),
    "is_discarded": _("discarded"),
    "written_before": _("written before"),
    "up_to_id": _("up to row"),
    "status": _("status"),
    "older_than": _("finished before"),
}


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyKeysetAdmin):
    """The audit list. Written by the verbs, never by hand."""

    keyset = ("-id",)
    list_display = ("number", "verb_label", "state_label", "progress", "what", "by", "short_reason", "requested_at")
    list_display_links = ("number",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OperatorAction]:
        return cast(QuerySet[OperatorAction], super().get_queryset(request))

    def get_urls(self) -> list[URLPattern]:
        def page(route: str, view: Any, name: str) -> URLPattern:
            return cast(URLPattern, path(route, self.admin_site.admin_view(view), name=name))

        return [
            page("types/", self.types_page, "outbox_event_types"),
            page("pause/", self._pause_page(Verb.PAUSE), "outbox_pause"),
            page("resume/", self._pause_page(Verb.RESUME), "outbox_resume"),
            page("<int:action_id>/progress/", never_cache(self.progress_part), "outbox_operatoraction_progress"),
            page("<int:action_id>/stop/", require_POST(self.stop), "outbox_operatoraction_stop"),
            *super().get_urls(),
        ]

    # --- the list

    @column(description=_("action"))
    def number(self, action: OperatorAction) -> str:
        return f"#{action.pk}"

    @column(description=_("verb"))
    def verb_label(self, action: OperatorAction) -> str:
        return str(action.get_verb_display())

    @column(description=_("state"))
    def state_label(self, action: OperatorAction) -> str:
        return coloured_label(action.get_state_display(), COLOURS[State(action.state)])

    @column(description=_("done"))
    def progress(self, action: OperatorAction) -> SafeString:
        return one_line(f"{action.done_count:,} / {action.expected_count:,}")

    @column(description=_("what"))
    def what(self, action: OperatorAction) -> str:
        return bounded(", ".join(f"{name}: {value}" for name, value in selection_in_words(action)), max_bytes=120)

    @column(description=_("reason"))
    def short_reason(self, action: OperatorAction) -> str:
        return bounded(action.reason, max_bytes=120)

    # --- one action

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not (object_id.isascii() and object_id.isdigit() and len(object_id) < 19):
            raise Http404
        return self._show(request, int(object_id), "outbox/operator_action.html")

    def progress_part(self, request: HttpRequest, action_id: int) -> HttpResponse:
        """Return the part of an action's page that the page fetches again while the action runs."""
        return self._show(request, action_id, "outbox/operator_progress.html")

    def _show(self, request: HttpRequest, action_id: int, template: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        action = get_object_or_404(OperatorAction, pk=action_id)
        whole = max(action.expected_count, action.done_count, 1)
        context = {
            **self.admin_site.each_context(request),
            "title": f"{action.get_verb_display()} #{action.pk}",
            "opts": self.opts,
            "media": self.media,
            "action": action,
            "done": f"{action.done_count:,}",
            "expected": f"{action.expected_count:,}",
            "colour": COLOURS[State(action.state)],
            "parts": selection_in_words(action),
            "is_over": action.state in (State.DONE, State.STOPPED),
            "percent": 100 if action.state == State.DONE else 100 * action.done_count // whole,
            "may_stop": _may_stop(request, action),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, template, context)

    def stop(self, request: HttpRequest, action_id: int) -> HttpResponse:
        """Stop an action; needs the permission of its verb."""
        action = get_object_or_404(OperatorAction, pk=action_id)
        check_permission(request=request, permission=PERMISSIONS.get(Verb(action.verb), "outbox.nobody"))
        try:
            request_stop(action_id=action.pk, by=request.user.get_username())
        except ActionOver as error:
            self.message_user(request, words_of(error=error), messages.WARNING)
        else:
            log_action(action=action, request=request)
            self.message_user(request, gettext("It ends after the batch in hand; moved rows stay moved."))
        if self.has_view_permission(request):
            return redirect("admin:outbox_operatoraction_change", action.pk)
        return redirect("admin:outbox_deadletter_changelist")

    # --- event types

    def types_page(self, request: HttpRequest) -> HttpResponse:
        """Show every event type, and which are paused."""
        if not request.user.has_perm("outbox.view_outboxmessage"):
            raise PermissionDenied
        paused = {pause.pk: pause for pause in PausedType.objects.all()}
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Event types"),
            "opts": self.opts,
            "media": self.media,
            "types": [
                {"name": name, "pause": paused.get(name), "blocks": name in blocking_types()}
                for name in sorted({*EVENT_TYPES, *paused})
            ],
            "may_pause": request.user.has_perm(PERMISSIONS[Verb.PAUSE]),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "outbox/event_types.html", context)

    def _pause_page(self, verb: OperatorAction.Verb) -> Any:
        def page(request: HttpRequest) -> HttpResponse:
            check_permission(request=request, permission=PERMISSIONS[verb])
            form = ReasonForm(request.POST if request.method == "POST" else None)
            event_type = (request.POST if request.method == "POST" else request.GET).get("event_type", "")
            if form.is_valid():
                self._pause_or_resume(request, verb, event_type, form.cleaned_data["reason"])
                return redirect("admin:outbox_event_types")
            context = {
                **self.admin_site.each_context(request),
                "title": PAUSE_TITLES[verb],
                "opts": self.opts,
                "media": self.media,
                "warning": PAUSE_WARNINGS[verb],
                "event_type": event_type,
                "form": form,
            }
            request.current_app = self.admin_site.name
            return TemplateResponse(request, "outbox/pause.html", context)

        return page

    def _pause_or_resume(self, request: HttpRequest, verb: str, event_type: str, reason: str) -> None:
        change = pauses.pause_type if verb == Verb.PAUSE else pauses.resume_type
        by, user_id = request.user.get_username(), request.user.pk
        try:
            action = change(event_type=event_type, by=by, user_id=user_id, reason=reason, now=database_now())
        except DomainError as error:
            self.message_user(request, words_of(error=error), messages.WARNING)
            return
        log_action(action=action, request=request)
        told = gettext("%(type)s is paused.") if verb == Verb.PAUSE else gettext("%(type)s goes on.")
        self.message_user(request, told % {"type": event_type}, messages.SUCCESS)


def selection_in_words(action: OperatorAction) -> list[tuple[Any, str]]:
    """Return what an action was for as pairs of a name and a value."""
    return [(PARTS[name], _in_words(value)) for name, value in action.selection.items() if name in PARTS]


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"#{row_id}" for row_id in value[:100]) + ("…" if len(value) > 100 else "")
    return gettext("yes") if value is True else str(value)


def _may_stop(request: HttpRequest, action: OperatorAction) -> bool:
    permission = PERMISSIONS.get(Verb(action.verb))
    is_open = action.state in (State.WAITING, State.RUNNING) and not action.is_stop_requested
    return is_open and permission is not None and request.user.has_perms([permission, "outbox.view_outboxmessage"])
