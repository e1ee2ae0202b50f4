"""What operators do to ticked users: lock them out, let them in again, and end their sessions."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from smartflow.accounts import operations
from smartflow.accounts.admin.log import note_action
from smartflow.accounts.admin.sessions import END_SESSION, as_actor
from smartflow.accounts.models import User
from smartflow.api.keyset_admin import operator_action
from smartflow.kernel.clock import utc_now

LOCKED, STAFF = "locked", "staff"


class UserStateFilter(SimpleListFilter):
    """Locked users (idx_user_active), or those who may sign in to the admin (idx_user_staff)."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [(LOCKED, _("locked")), (STAFF, _("staff"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        if self.value() == LOCKED:
            return queryset.filter(is_active=False)
        return queryset.filter(is_staff=True) if self.value() == STAFF else queryset


class UserActions:
    """The actions of the users' list; each calls an operation and leaves a line in the user's history."""

    list_per_page: int
    message_user: Callable[..., None]

    def has_lock_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may lock users out and let them in again."""
        return request.user.has_perm("accounts.change_user")

    def has_end_sessions_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may end sessions of users."""
        return request.user.has_perm(END_SESSION)

    @operator_action(description=_("Lock the users out; their sessions end"), permissions=["lock"])
    def lock_users(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Lock the ticked users who are not."""

        def lock(user: User) -> str:
            operations.lock_user(user_id=user.pk, now=utc_now())
            return "locked by an operator"

        changed = self._apply(request, queryset.filter(is_active=True), lock)
        text = ngettext("%(number)d user was locked out.", "%(number)d users were locked out.", changed)
        self._tell(request, text, changed)

    @operator_action(description=_("Let the users in again"), permissions=["lock"])
    def unlock_users(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Unlock the ticked users who are locked."""

        def unlock(user: User) -> str:
            operations.unlock_user(user_id=user.pk, now=utc_now())
            return "unlocked by an operator"

        changed = self._apply(request, queryset.filter(is_active=False), unlock)
        text = ngettext("%(number)d user may sign in again.", "%(number)d users may sign in again.", changed)
        self._tell(request, text, changed)

    @operator_action(description=_("End all sessions of the users"), permissions=["end_sessions"])
    def end_sessions(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """End the live sessions of the ticked users."""
        ended: list[int] = []

        def end(user: User) -> str:
            ended.append(
                operations.end_all_sessions(
                    by=as_actor(user=user), keep_current=False, now=utc_now(), reason="ended_by_operator"
                )
            )
            return f"{ended[-1]} sessions ended by an operator" if ended[-1] else ""

        self._apply(request, queryset, end)
        text = ngettext("%(number)d session was ended.", "%(number)d sessions were ended.", sum(ended))
        self._tell(request, text, sum(ended))

    def _apply(self, request: HttpRequest, users: QuerySet[User], act: Callable[[User], str]) -> int:
        """Do it to each user whom the operator may change, with its line in the log; return to how many."""
        changed = 0
        for user in users.order_by("pk")[: self.list_per_page]:
            if not may_touch(request=request, user=user):
                continue
            with transaction.atomic():
                done = act(user)
                if done:
                    note_action(request, user, name=user.username, done=done)
                    changed += 1
        return changed

    def _tell(self, request: HttpRequest, text: str, number: int) -> None:
        level = messages.SUCCESS if number else messages.WARNING
        self.message_user(request, text % {"number": number}, level)


def may_touch(*, request: HttpRequest, user: User) -> bool:
    """Tell whether this operator may lock this user: superusers are only theirs, and nobody locks themselves out."""
    return user.pk != request.user.pk and (request.user.is_superuser or not user.is_superuser)
