"""Runs: what is being answered now, and how the others ended."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from chat.admin.private_text import PrivateTextAdmin, find_user_ids, preformatted, pretty_json
from chat.admin.timeline import timeline_table
from chat.contracts import RunState
from chat.models import AgentTimelineEvent, ChatRun
from smartflow.accounts.ledger import list_run_calls
from smartflow.api.admin_table import Table
from smartflow.api.keyset_admin import coloured_label, column, one_line, short_id
from smartflow.kernel.clock import utc_now
from smartflow.kernel.durations import compact_duration
from smartflow.kernel.ids import is_uuid

RUN_COLOURS: dict[str, str] = {
    RunState.QUEUED: "info",
    RunState.RUNNING: "primary",
    RunState.FINISHED: "success",
    RunState.FAILED: "danger",
    RunState.STOPPED: "warning",
}
RUN_STATES: dict[str, Any] = {
    RunState.QUEUED: _("queued"),
    RunState.RUNNING: _("running"),
    RunState.FINISHED: _("finished"),
    RunState.FAILED: _("failed"),
    RunState.STOPPED: _("stopped"),
}
IN_FLIGHT, ANY = "in_flight", "any"
# Of a run's calls and entries, far more than a run has.
NEWEST = 50


class RunStateFilter(SimpleListFilter):
    """
    One state at a time: only (is_live, …) and (state, created_at) are indexed, so all runs have no order to be read in.

    Runs in flight unless asked otherwise; a search looks through every state of its conversation or user.
    """

    title = _("state")
    parameter_name = "state"

    def __init__(
        self, request: HttpRequest, params: dict[str, list[str]], model: type[ChatRun], model_admin: "ModelAdmin[Any]"
    ) -> None:
        self._default = ANY if request.GET.get("q", "").strip() else IN_FLIGHT
        super().__init__(request, params, model, model_admin)

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        ended = [(state.value, RUN_STATES[state]) for state in (RunState.FINISHED, RunState.FAILED, RunState.STOPPED)]
        choices = [(IN_FLIGHT, _("in flight")), *ended]
        return [(ANY, _("any")), *choices] if self._default == ANY else choices

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Offer the states without Django's "All"."""
        chosen = self.value() or self._default
        for name, title in self.lookup_choices:
            yield {
                "selected": name == chosen,
                "query_string": changelist.get_query_string({self.parameter_name: name}),
                "display": title,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[ChatRun]) -> QuerySet[ChatRun]:
        chosen = self.value() or self._default
        if chosen in {RunState.FINISHED, RunState.FAILED, RunState.STOPPED}:
            return queryset.filter(state=chosen)
        return queryset if chosen == ANY and self._default == ANY else queryset.filter(is_live=True)


@admin.register(ChatRun)
class ChatRunAdmin(PrivateTextAdmin):
    """Found by run id, by conversation (uk_run_variant) or by user (idx_run_user_created)."""

    keyset = ("-created_at", "-id")
    private_fields = ("input_text", "output_text", "output_events")
    list_display = (
        "short_run_id",
        "shown_state",
        "age",
        "user",
        "short_chat_id",
        "turn",
        "model",
        "owner",
        "lease",
        "total_tokens",
        "error_code",
    )
    list_filter = (RunStateFilter,)
    search_fields = ("id",)
    search_help_text = _("run id, conversation id, user name or user id, exact")
    change_form_outer_after_template = "chat/run_activity.html"
    public_fieldsets = (
        (
            _("Run"),
            {"fields": (("id", "shown_state"), ("user", "chat_id"), ("kind", "turn"), ("is_current", "error_code"))},
        ),
        (_("Model"), {"fields": (("model", "thinking"), ("prompt_tokens", "completion_tokens"), "total_tokens")}),
        (
            _("Executor"),
            {
                "fields": (
                    ("owner", "lease"),
                    ("attempt", "epoch"),
                    ("has_spoken", "stop_requested_at"),
                    ("held_tokens", "request_id"),
                )
            },
        ),
        (_("When"), {"fields": (("created_at", "started_at"), ("finished_at", "age"))}),
    )

    def find(self, request: HttpRequest, queryset: QuerySet[ChatRun], term: str) -> QuerySet[ChatRun]:
        if not is_uuid(term):
            return queryset.filter(user_id__in=find_user_ids(term))
        return (
            queryset.filter(pk=term)
            if ChatRun.objects.filter(pk=term).exists()
            else queryset.filter(chat__chat_id=term)
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        run = self.get_object(request, object_id) if self.has_view_permission(request) else None
        activity = {"run": run, **_activity_of(request, run)} if run is not None else {}
        response: HttpResponse = super().change_view(
            request, object_id, form_url, {**(extra_context or {}), **activity}
        )
        return response

    @column(description=_("turn"))
    def turn(self, run: ChatRun) -> str:
        return turn_of(run)

    @column(description=_("run"))
    def short_run_id(self, run: ChatRun) -> str:
        return short_id(run.id)

    @column(description=_("conversation"))
    def short_chat_id(self, run: ChatRun) -> str:
        return short_id(run.chat_id)

    @column(description=_("state"))
    def shown_state(self, run: ChatRun) -> str:
        return coloured_label(RUN_STATES[run.state], RUN_COLOURS[run.state])

    @column(description=_("took or age"))
    def age(self, run: ChatRun) -> str:
        return one_line(compact_duration(((run.finished_at or utc_now()) - run.created_at).total_seconds()))

    @column(description=_("lease"))
    def lease(self, run: ChatRun) -> str:
        if not run.is_live or run.lease_until is None:
            return "-"
        seconds = (run.lease_until - utc_now()).total_seconds()
        text = _("for %(time)s") if seconds > 0 else _("expired %(time)s ago")
        return one_line(text % {"time": compact_duration(abs(seconds))})

    @column(description=_("the user's message"))
    def whole_input_text(self, run: ChatRun) -> str:
        return preformatted(run.input_text)

    @column(description=_("the answer"))
    def whole_output_text(self, run: ChatRun) -> str:
        return preformatted(run.output_text)

    @column(description=_("events within the answer"))
    def whole_output_events(self, run: ChatRun) -> str:
        return pretty_json(run.output_events)


def turn_of(run: ChatRun) -> str:
    """Return the turn's number, with the variant's behind it where there is more than one."""
    return f"{run.turn_no}.{run.variant_no}" if run.variant_no > 1 else str(run.turn_no)


def _activity_of(request: HttpRequest, run: ChatRun) -> dict[str, Any]:
    entries = AgentTimelineEvent.objects.filter(chat__chat_id=run.chat_id, run_id=run.pk).order_by("seq")[:NEWEST]
    return {"calls": _calls_table(run), "timeline": timeline_table(request, entries)}


def _calls_table(run: ChatRun) -> Table:
    heads = (_("purpose"), _("model"), _("input"), _("cached"), _("output"), _("total"), _("estimated"), _("written"))
    rows = (
        (
            entry.call.purpose,
            entry.call.model,
            entry.call.input_tokens,
            entry.call.cached_tokens,
            entry.call.output_tokens,
            entry.call.total_tokens,
            _("yes") if entry.call.is_estimated else _("no"),
            one_line(f"{localtime(entry.created_at):%Y-%m-%d %H:%M:%S}"),
        )
        for entry in list_run_calls(run_id=run.pk, limit=NEWEST)
    )
    return Table.of(heads, rows, empty=_("None yet."))
