"""A user's quota on the user's page: its windows, holds and latest entries, and what operators may do to it.

Both verbs ask for a number and a reason on a page of their own, and leave a row in the ledger and a line in the user's
history.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timezone import localtime
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextareaWidget

from smartflow.accounts import quota
from smartflow.accounts.admin.ledger import kind_label
from smartflow.accounts.models import TokenHold, TokenLedgerEntry, TokenWindow, User
from smartflow.api.admin_table import Table, link
from smartflow.api.keyset_admin import KeysetAdmin, one_line
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import DomainError
from smartflow.kernel.ids import is_uuid, new_uuid

WINDOWS_SHOWN = 5
ROWS_SHOWN = 20


class Change(Protocol):
    """The form of grant_tokens and adjust_tokens in smartflow/accounts/quota.py."""

    def __call__(
        self, *, user_id: int, tokens: int, reason: str, by: int, now: datetime, entry_key: str = ""
    ) -> int: ...


@dataclass(frozen=True, kw_only=True)
class QuotaVerb:
    """What an operator does to a quota, and the words for it. `codename` is the permission's, `done` the log's."""

    codename: str
    change: Change
    title: Any
    explanation: Any
    button: Any
    done: str

    @property
    def url_name(self) -> str:
        """The name of the verb's page."""
        return f"accounts_user_{self.codename}"


GRANT = QuotaVerb(
    codename="grant_tokens",
    change=quota.grant_tokens,
    title=_("Grant tokens"),
    explanation=_(
        "The user may use that many tokens more until the quota starts anew. A negative number takes a grant back."
    ),
    button=_("Grant"),
    done="granted",
)
ADJUST = QuotaVerb(
    codename="adjust_tokens",
    change=quota.adjust_tokens,
    title=_("Adjust usage"),
    explanation=_(
        "Corrects what the user has used, in this window and in all. A negative number takes tokens off, down to 0 in"
        " this window."
    ),
    button=_("Adjust"),
    done="adjusted by",
)
VERBS = (GRANT, ADJUST)


class TokensForm(forms.Form):
    """How many and why. `once` names this form: sent twice, it has one effect."""

    tokens = forms.IntegerField(
        label=_("Tokens"),
        min_value=-quota.MOST_TOKENS,
        max_value=quota.MOST_TOKENS,
        widget=UnfoldAdminIntegerFieldWidget(attrs={"autofocus": True}),
        error_messages={"required": _("Give a number of tokens.")},
    )
    reason = forms.CharField(
        label=_("Reason"),
        max_length=255,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        error_messages={"required": _("Say why: it is what the next operator reads.")},
    )
    once = forms.CharField(widget=forms.HiddenInput)

    def clean_once(self) -> str:
        """Return the form's name, or that of a new form for one that no page of ours gave out."""
        once: str = self.cleaned_data["once"]
        return once if is_uuid(once) else new_uuid()


def quota_urls(*, model_admin: KeysetAdmin) -> list[URLPattern]:
    """Return the pages of the verbs, below the users' list."""
    return [
        path(
            f"<int:user_id>/{verb.codename.replace('_', '-')}/",
            model_admin.admin_site.admin_view(_page_of(verb, model_admin)),
            name=verb.url_name,
        )
        for verb in VERBS
    ]


def quota_context(*, request: HttpRequest, user_id: int) -> dict[str, Any]:
    """Return what the template accounts/user_quota.html shows, as far as the operator may see it."""
    context: dict[str, Any] = {
        "quota_verbs": [
            {"title": verb.title, "url": reverse(f"admin:{verb.url_name}", args=[user_id])}
            for verb in VERBS
            if request.user.has_perm(f"accounts.{verb.codename}")
        ]
    }
    if request.user.has_perm("accounts.view_tokenwindow"):
        windows = list(TokenWindow.objects.filter(user_id=user_id).order_by("-starts_at")[:WINDOWS_SHOWN])
        context |= {"windows": _windows_table(windows), "holds": _holds_table(windows[:1])}
    if request.user.has_perm("accounts.view_tokenledgerentry"):
        context["entries"] = _entries_table(user_id)
    return context


def _page_of(verb: QuotaVerb, model_admin: KeysetAdmin) -> Callable[..., HttpResponse]:
    def page(request: HttpRequest, user_id: int) -> HttpResponse:
        if not request.user.has_perms([f"accounts.{verb.codename}", "accounts.view_user"]):
            raise PermissionDenied
        user = get_object_or_404(User.objects.only("username"), pk=user_id)
        form = TokensForm(request.POST if request.method == "POST" else None, initial={"once": new_uuid()})
        if form.is_valid() and _apply(request, verb, user, form):
            return redirect("admin:accounts_user_change", user_id)
        context = {
            **model_admin.admin_site.each_context(request),
            "title": verb.title,
            "opts": model_admin.opts,
            "media": model_admin.media,
            "verb": verb,
            "account": user,
            "form": form,
            "windows": _windows_table(TokenWindow.objects.filter(user_id=user_id).order_by("-starts_at")[:1]),
        }
        request.current_app = model_admin.admin_site.name
        return TemplateResponse(request, "accounts/tokens.html", context)

    return page


def _apply(request: HttpRequest, verb: QuotaVerb, user: User, form: TokensForm) -> bool:
    """Do it and tell the operator; False when it can't be done, which the form then says."""
    values, by = form.cleaned_data, cast(int, request.user.pk)
    try:
        with transaction.atomic():
            changed = verb.change(
                user_id=user.pk,
                tokens=values["tokens"],
                reason=values["reason"],
                by=by,
                now=utc_now(),
                entry_key=f"{verb.codename.partition('_')[0]}:{values['once']}",
            )
            if changed:
                LogEntry.objects.create(
                    user_id=by,
                    content_type=ContentType.objects.get_for_model(User),
                    object_id=str(user.pk),
                    object_repr=str(user)[:200],
                    action_flag=CHANGE,
                    change_message=f"{verb.done} {changed} tokens. Reason: {values['reason']}",
                )
    except DomainError as error:
        form.add_error("tokens", gettext(error.message))
        return False
    if changed:
        told = ngettext("Done: %(tokens)d token.", "Done: %(tokens)d tokens.", abs(changed)) % {"tokens": changed}
        messages.success(request, told)
    else:
        messages.warning(request, gettext("This was done already; nothing was changed a second time."))
    return True


def _moment(value: datetime) -> Any:
    return one_line(f"{localtime(value):%Y-%m-%d %H:%M}")


def _windows_table(windows: Any) -> Table:
    heads = (_("window begins"), _("ends"), _("granted"), _("used"), _("set aside"))
    rows = (
        (_moment(row.starts_at), _moment(row.ends_at), row.granted_tokens, row.used_tokens, row.held_tokens)
        for row in windows
    )
    empty = _("None yet; the first answer opens one (%(zone)s).") % {"zone": settings.TIME_ZONE}
    return Table.of(heads, rows, empty=empty)


def _holds_table(windows: list[TokenWindow]) -> Table:
    live = TokenHold.objects.filter(window__in=windows, settled_at__isnull=True).order_by("pk")[:ROWS_SHOWN]
    rows = ((hold.pk, hold.tokens, _moment(hold.expires_at)) for hold in live)
    return Table.of((_("held for run"), _("tokens"), _("until")), rows, empty=_("Nothing is held."))


def _entries_table(user_id: int) -> Table:
    entries = (
        TokenLedgerEntry.objects.filter(user_id=user_id)
        .prefetch_related("actor")
        .order_by("-user_id", "-created_at", "-id")[:ROWS_SHOWN]
    )
    rows = (
        (
            link(reverse("admin:accounts_tokenledgerentry_change", args=[entry.pk]), _moment(entry.created_at)),
            kind_label(entry),
            entry.purpose or "-",
            entry.model or "-",
            entry.total_tokens,
            f"{entry.actor}: {entry.reason}" if entry.actor_id else "-",
        )
        for entry in entries
    )
    heads = (_("when"), _("kind"), _("purpose"), _("model"), _("tokens"), _("decided by"))
    return Table.of(heads, rows, empty=_("None yet."))
