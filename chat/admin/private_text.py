"""What the chat pages share: people's words are private.

Without the permission chat.view_message_text no page shows them and no query loads them.
"""

import json
from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.db.models.functions import Substr
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, column

VIEW_TEXT = "chat.view_message_text"
EXCERPT_LENGTH = 40


class PrivateTextAdmin(ReadOnlyKeysetAdmin):
    """
    An admin of rows with private texts.

    `private_fields` are deferred everywhere and shown on a row's page; the first `excerpt_field` characters stand in
    the list. Both only with the permission.
    """

    private_fields: ClassVar[tuple[str, ...]] = ()
    excerpt_field = ""
    public_fieldsets: ClassVar[tuple[Any, ...]] = ()
    list_select_related: tuple[str, ...] = ("user",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = super().get_queryset(request)
        queryset = queryset.select_related("user").defer(*self.private_fields, "user__password")
        if self.excerpt_field and request.user.has_perm(VIEW_TEXT):
            queryset = queryset.annotate(text_start=Substr(self.excerpt_field, 1, EXCERPT_LENGTH + 1))
        return queryset

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        columns = tuple(super().get_list_display(request))
        return (*columns, "excerpt") if self.excerpt_field and request.user.has_perm(VIEW_TEXT) else columns

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        shown = [f"whole_{name}" for name in self.private_fields]
        private = shown if request.user.has_perm(VIEW_TEXT) else ["masked_text"]
        return [*self.public_fieldsets, (_("Text"), {"fields": private})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        names: list[str] = []
        for _title, options in self.get_fieldsets(request, obj):
            for entry in options["fields"]:
                names.extend(entry if isinstance(entry, tuple) else [entry])
        return names

    @column(description=_("text"))
    def excerpt(self, row: Any) -> SafeString:
        text = row.text_start or ""
        text = text if len(text) <= EXCERPT_LENGTH else text[:EXCERPT_LENGTH] + "…"
        return format_html('<span class="block" style="min-width:14rem">{}</span>', text)

    @column(description=_("text"))
    def masked_text(self, row: Any) -> str:
        return str(_("Hidden: reading texts needs the permission “%(name)s”.") % {"name": VIEW_TEXT})


def preformatted(text: str | None) -> SafeString | str:
    """Return text as a block that keeps its line breaks."""
    return format_html('<div class="whitespace-pre-wrap break-words">{}</div>', text) if text else "-"


def pretty_json(value: Any) -> SafeString | str:
    """Return a JSON value as an indented block."""
    return preformatted(json.dumps(value, indent=2, ensure_ascii=False)) if value else "-"


def find_user_ids(term: str) -> list[int]:
    """Return the ids of the users with exactly this name or id."""
    ids = list(get_user_model()._default_manager.filter(username=term).values_list("pk", flat=True))
    if term.isascii() and term.isdigit() and len(term) < 10:
        ids.append(int(term))
    return ids
