"""The token ledger as operators see it, newest first: who used how much for what, and what operators granted."""

from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from smartflow.accounts.contracts import EntryKind
from smartflow.accounts.models import TokenLedgerEntry, User
from smartflow.api.admin_table import link
from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, coloured_label, column, one_line, short_id
from smartflow.kernel.ids import is_uuid
from smartflow.kernel.text import bounded

KINDS: dict[str, Any] = {EntryKind.USAGE: _("usage"), EntryKind.GRANT: _("grant"), EntryKind.ADJUST: _("adjustment")}
KIND_COLOURS: dict[str, str] = {EntryKind.GRANT: "success", EntryKind.ADJUST: "warning"}


def kind_label(entry: TokenLedgerEntry) -> str:
    """Return the entry's kind, coloured when an operator made it."""
    return coloured_label(KINDS[entry.kind], KIND_COLOURS.get(entry.kind, "default"))


class KindFilter(SimpleListFilter):
    """By kind (idx_ledger_kind)."""

    title = _("kind")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return list(KINDS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in KINDS:
            return queryset
        # As a range: for an equality MariaDB reads a kind from its first entry to come to the page's place.
        return queryset.filter(kind__gte=self.value(), kind__lte=self.value())


@admin.register(TokenLedgerEntry)
class TokenLedgerAdmin(ReadOnlyKeysetAdmin):
    """Found by conversation, run, entry key or user; each by an index of its own."""

    list_display = (
        "when",
        "owner",
        "kind_label",
        "purpose",
        "model",
        "tokens",
        "conversation",
        "run",
        "decided",
    )
    list_filter = (KindFilter,)
    search_fields = ("entry_key",)
    search_help_text = _("conversation id, run id, entry key, user name or user id, exact")
    fieldsets = (
        (_("Entry"), {"fields": (("entry_key", "kind_label"), ("user", "created_at"), ("purpose", "model"))}),
        (
            _("Tokens"),
            {
                "fields": (
                    ("input_tokens", "cached_tokens"),
                    ("output_tokens", "reasoning_tokens"),
                    ("total_tokens", "is_estimated"),
                )
            },
        ),
        (_("Where it came from"), {"fields": (("conversation_id", "run_id"), "request_id")}),
        (_("Decided by an operator"), {"fields": (("actor", "window"), "reason")}),
    )
    readonly_fields = ("kind_label",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TokenLedgerEntry]:
        queryset: QuerySet[TokenLedgerEntry] = super().get_queryset(request)
        # Not joined, nor `user` a column, which Django would join: MariaDB then begins with the users, and sorts every
        # entry there is to show fifty.
        names = User.objects.only("username")
        return queryset.prefetch_related(Prefetch("user", names), Prefetch("actor", names), "window")

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        term = request.GET.get("q", "").strip()
        if term and not _names_calls(term):
            return ("-user_id", "-created_at", "-id")
        return ("-kind", "-id") if request.GET.get("kind") in KINDS and not term else ("-id",)

    def find(self, request: HttpRequest, queryset: QuerySet[TokenLedgerEntry], term: str) -> QuerySet[TokenLedgerEntry]:
        if is_uuid(term):
            in_conversation = queryset.filter(conversation_id=term)
            return in_conversation if in_conversation.exists() else queryset.filter(run_id=term)
        if _names_calls(term):
            return queryset.filter(entry_key=term)
        ids = list(User.objects.filter(username=term).values_list("pk", flat=True))
        if term.isascii() and term.isdigit() and len(term) < 10:
            ids.append(int(term))
        return queryset.filter(user_id__in=ids)

    @column(description=_("when"))
    def when(self, entry: TokenLedgerEntry) -> SafeString:
        return one_line(f"{localtime(entry.created_at):%Y-%m-%d %H:%M:%S}")

    @column(description=_("user"))
    def owner(self, entry: TokenLedgerEntry) -> str:
        return str(entry.user)

    @column(description=_("kind"))
    def kind_label(self, entry: TokenLedgerEntry) -> str:
        return kind_label(entry)

    @column(description=_("tokens"))
    def tokens(self, entry: TokenLedgerEntry) -> str:
        return f"≈ {entry.total_tokens}" if entry.is_estimated else str(entry.total_tokens)

    @column(description=_("conversation"))
    def conversation(self, entry: TokenLedgerEntry) -> str:
        return _search(entry.conversation_id)

    @column(description=_("run"))
    def run(self, entry: TokenLedgerEntry) -> str:
        return _search(entry.run_id)

    @column(description=_("decided by"))
    def decided(self, entry: TokenLedgerEntry) -> str:
        return f"{entry.actor}: {bounded(entry.reason, max_bytes=80)}" if entry.actor_id else "-"


def _search(identifier: str) -> str:
    """Return a link to the entries that carry the id."""
    return link(f"?{urlencode({'q': identifier})}", short_id(identifier)) if identifier else "-"


def _names_calls(term: str) -> bool:
    """Tell whether the term names a conversation, a run or an entry rather than a user."""
    return is_uuid(term[:36]) or term.startswith((f"{EntryKind.GRANT}:", f"{EntryKind.ADJUST}:"))
