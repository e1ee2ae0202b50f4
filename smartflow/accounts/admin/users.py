"""The operators' pages of users and groups.

Users are never deleted here: that would take every conversation along in one request. They are switched off instead,
which ends their tokens too.
"""

import sys
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from smartflow.accounts import operations
from smartflow.accounts.admin.quota import quota_context, quota_urls
from smartflow.accounts.admin.sessions import as_actor, state_line
from smartflow.accounts.admin.user_actions import UserActions, UserStateFilter, may_touch
from smartflow.accounts.models import TokenSession, TokenWindow, User
from smartflow.api.keyset_admin import KeysetAdmin, column
from smartflow.kernel.clock import utc_now

SESSIONS_SHOWN = 20
# Whose names begin alike; who has more writes more of the name.
USERS_FOUND = 500
POWERS = ("is_staff", "is_superuser", "groups")

admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    """Groups of operators and what they may do."""


class PasswordForm(AdminPasswordChangeForm):  # type: ignore[misc]
    """Sets a user's password and ends their sessions: whoever knew the old one is out."""

    def save(self, commit: bool = True) -> User:
        """Write the one column; saving the whole row would undo a token count written meanwhile."""
        user: User = super().save(commit=False)
        if commit:
            with transaction.atomic():
                user.save(update_fields=["password"])
                operations.end_all_sessions(
                    by=as_actor(user=user), keep_current=False, now=utc_now(), reason="ended_by_operator"
                )
        return user


@admin.register(User)
class UserAdmin(UserActions, DjangoUserAdmin, KeysetAdmin):  # type: ignore[misc, type-arg]
    """Users with their quota; found by how their name begins, or by id. What an operator may do comes from groups."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = PasswordForm
    keyset = ("-id",)
    ordering = ("-id",)
    list_display = ("username", "id", "quota", "token_limit", "token_usage", "is_active", "is_staff", "date_joined")
    list_filter = (UserStateFilter,)
    actions = ("lock_users", "unlock_users", "end_sessions")
    filter_horizontal = ()
    autocomplete_fields = ("groups",)
    search_fields = ("username",)
    search_help_text = _("how the user name begins, or the user id")
    readonly_fields = ("quota", "token_usage", "last_reset_at", "zone", "date_joined", "last_login")
    change_form_outer_after_template = "accounts/user_after.html"
    fieldsets = (
        (_("User"), {"fields": (("username", "phone_number"), "password")}),
        (_("Quota"), {"fields": (("token_limit", "token_usage"), ("quota", "last_reset_at"), "zone")}),
        (_("Permissions"), {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        (_("When"), {"fields": (("date_joined", "last_login"),)}),
    )
    add_fieldsets = (
        (None, {"fields": ("username", "phone_number", "token_limit", "usable_password", "password1", "password2")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        current = TokenWindow.objects.filter(user_id=OuterRef("pk"), ends_at__gt=utc_now()).order_by("-starts_at")
        queryset: QuerySet[User] = super().get_queryset(request)
        return queryset.annotate(
            window_used=Subquery(current.values("used_tokens")[:1]),
            window_granted=Subquery(current.values("granted_tokens")[:1]),
        )

    def get_urls(self) -> list[URLPattern]:
        return [*quota_urls(model_admin=self), *super().get_urls()]

    def find(self, request: HttpRequest, queryset: QuerySet[User], term: str) -> QuerySet[User]:
        # As a range: a LIKE of Django's does not use the index. Bounded, because the list then sorts what was found.
        begins = User.objects.filter(username__gte=term, username__lt=term + chr(sys.maxunicode))
        ids = list(begins.order_by("username").values_list("pk", flat=True)[:USERS_FOUND])
        if term.isascii() and term.isdigit() and len(term) < 10:
            ids.append(int(term))
        return queryset.filter(pk__in=ids)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[User], search_term: str
    ) -> tuple[QuerySet[User], bool]:
        return KeysetAdmin.get_search_results(self, request, queryset, search_term)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        # Otherwise an operator could set a superuser's password and become one.
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return bool(super().has_change_permission(request, obj))

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        fields = tuple(super().get_readonly_fields(request, obj))
        if obj is not None and not may_touch(request=request, user=obj):
            fields = (*fields, "is_active")
        return fields if request.user.is_superuser else (*fields, *POWERS)

    def save_model(self, request: HttpRequest, obj: User, form: "ModelForm[User]", change: Any) -> None:
        """Write only what was changed; saving the whole row would undo a token count written meanwhile."""
        if not change:
            super().save_model(request, obj, form, change)
            return
        columns = {field.name for field in User._meta.concrete_fields}
        changed = [name for name in form.changed_data if name in columns]
        with transaction.atomic():
            if "is_active" in changed:
                changed.remove("is_active")
                set_active = operations.unlock_user if obj.is_active else operations.lock_user
                set_active(user_id=obj.pk, now=utc_now())
            if changed:
                obj.save(update_fields=changed)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context: dict[str, Any] = {**(extra_context or {}), "sessions_of": object_id}
        if object_id.isascii() and object_id.isdigit() and self.has_view_permission(request):
            context |= {
                **quota_context(request=request, user_id=int(object_id)),
                "sessions": _sessions(request, object_id),
            }
        response: HttpResponse = super().change_view(request, object_id, form_url, context)
        return response

    @column(description=_("time zone"))
    def zone(self, user: User) -> str:
        return user.time_zone or settings.TIME_ZONE

    @column(description=_("used this week"))
    def quota(self, user: User) -> SafeString | str:
        limit = user.token_limit + (getattr(user, "window_granted", 0) or 0)
        if limit <= 0:
            return "-"
        share = round(100 * (getattr(user, "window_used", 0) or 0) / limit)
        return format_html(
            '<span class="flex flex-row items-center gap-2"><span class="bg-base-200 rounded-default overflow-hidden '
            'dark:bg-base-700" style="display:inline-block;width:6rem;height:6px"><span class="{} block" '
            'style="width:{}%;height:6px"></span></span>{}%</span>',
            "bg-red-600" if share >= 100 else "bg-primary-600",
            min(share, 100),
            share,
        )


def _sessions(request: HttpRequest, user_id: str) -> list[dict[str, Any]]:
    if not request.user.has_perm("accounts.view_tokensession"):
        return []
    now = utc_now()
    rows = TokenSession.objects.filter(user_id=int(user_id)).order_by("-created_at", "-id")[:SESSIONS_SHOWN]
    return [{"session": row, **state_line(session=row, now=now)} for row in rows]
