"""The operators' pages of token sessions and the log of what operators did."""

from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.models import LogEntry
from django.contrib.admin.options import ModelAdmin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from smartflow.accounts import operations
from smartflow.accounts.admin.log import note_action
from smartflow.accounts.contracts import AuthenticatedUser
from smartflow.accounts.models import TokenSession, User
from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, coloured_label, column, operator_action, short_id
from smartflow.kernel.clock import utc_now

END_SESSION = "accounts.end_tokensession"
SESSION_COLOURS = {"live": "success", "ended": "default", "expired": "default"}
SESSION_STATES: dict[str, Any] = {"live": _("live"), "ended": _("ended"), "expired": _("expired")}


class SessionStateFilter(SimpleListFilter):
    """What is not over yet, or is (idx_session_expires); of the first little is ended, so the rest is passed over."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [(name, SESSION_STATES[name]) for name in ("live", "expired")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TokenSession]) -> QuerySet[TokenSession]:
        if self.value() == "live":
            return queryset.filter(expires_at__gt=utc_now(), revoked_at__isnull=True)
        return queryset.filter(expires_at__lte=utc_now()) if self.value() == "expired" else queryset


@admin.register(TokenSession)
class TokenSessionAdmin(ReadOnlyKeysetAdmin):
    """Sign-ins by user, newest first within each (idx_session_user_created); found by session id or user."""

    keyset = ("-user_id", "-created_at", "-id")
    list_filter = (SessionStateFilter,)
    list_display = (
        "short_session_id",
        "user",
        "state",
        "ip_address",
        "user_agent",
        "created_at",
        "refreshed_at",
        "revoke_reason",
    )
    list_select_related = ("user",)
    search_fields = ("id",)
    search_help_text = _("session id, user name or user id, exact")
    actions = ("end_sessions",)
    fields = (
        ("id", "user"),
        ("ip_address", "user_agent"),
        ("state", "revoke_reason"),
        ("created_at", "refreshed_at"),
        ("expires_at", "revoked_at"),
    )
    readonly_fields = ("state",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TokenSession]:
        queryset: QuerySet[TokenSession] = super().get_queryset(request)
        return queryset.select_related("user").defer("user__password", "refresh_jti")

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the order that the index of the filter holds; of one user's the search's index is the better one."""
        is_filtered = request.GET.get(SessionStateFilter.parameter_name) in ("live", "expired")
        if is_filtered and not request.GET.get("q", "").strip():
            return ("-expires_at", "-id")
        return super().get_keyset(request)

    def find(self, request: HttpRequest, queryset: QuerySet[TokenSession], term: str) -> QuerySet[TokenSession]:
        if TokenSession.objects.filter(pk=term).exists():
            return queryset.filter(pk=term)
        ids = list(User.objects.filter(username=term).values_list("pk", flat=True))
        if term.isascii() and term.isdigit() and len(term) < 10:
            ids.append(int(term))
        return queryset.filter(user_id__in=ids)

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may end sessions of users."""
        return request.user.has_perm(END_SESSION)

    @operator_action(description=_("End the sessions"), permissions=["end"])
    def end_sessions(self, request: HttpRequest, queryset: QuerySet[TokenSession]) -> None:
        """End the ticked sessions; their tokens are refused from now on."""
        now = utc_now()
        live = list(queryset.filter(revoked_at__isnull=True, expires_at__gt=now)[: self.list_per_page])
        with transaction.atomic():
            for session in live:
                operations.end_session(
                    by=as_actor(user=session.user, session_id=session.pk),
                    session_id=session.pk,
                    now=now,
                    reason="ended_by_operator",
                )
                note_action(request, session, name=f"session of {session.user}", done="ended by an operator")
        ended = len(live)
        text = ngettext("%(ended)d session was ended.", "%(ended)d sessions were ended.", ended) % {"ended": ended}
        self.message_user(request, text, messages.SUCCESS if ended else messages.WARNING)

    @column(description=_("session"))
    def short_session_id(self, session: TokenSession) -> str:
        return short_id(session.pk)

    @column(description=_("state"))
    def state(self, session: TokenSession) -> str:
        name = _state_of(session, utc_now())
        return coloured_label(SESSION_STATES[name], SESSION_COLOURS[name])


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyKeysetAdmin):
    """What operators did, newest first; found by operator."""

    keyset = ("-id",)
    list_display = ("action_time", "user", "content_type", "object_repr", "change_message")
    list_select_related = ("user", "content_type")
    search_fields = ("user__username",)
    search_help_text = _("operator's user name, exact")

    def find(self, request: HttpRequest, queryset: QuerySet[LogEntry], term: str) -> QuerySet[LogEntry]:
        return queryset.filter(user_id__in=list(User.objects.filter(username=term).values_list("pk", flat=True)))


def _state_of(session: TokenSession, now: datetime) -> str:
    if session.revoked_at is not None:
        return "ended"
    return "live" if session.expires_at > now else "expired"


def state_line(*, session: TokenSession, now: datetime) -> dict[str, Any]:
    """Return what a table of sessions shows of one."""
    name = _state_of(session, now)
    url = reverse("admin:accounts_tokensession_change", args=[session.pk])
    return {"state": SESSION_STATES[name], "colour": SESSION_COLOURS[name], "url": url}


def as_actor(*, user: User, session_id: str = "") -> AuthenticatedUser:
    """Return the user as operations want to know who acts."""
    return AuthenticatedUser(user_id=user.pk, session_id=session_id, username=user.username)
