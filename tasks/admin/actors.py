"""What both pages share: finding users, and the line that an operator's action leaves in the log."""

from typing import Any, cast

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Prefetch, QuerySet
from django.http import HttpRequest


def find_user_ids(term: str) -> list[int]:
    """Return the ids of the users with exactly this name or id."""
    ids = list(get_user_model()._default_manager.filter(username=term).values_list("pk", flat=True))
    return [*ids, *row_ids(term)]


def with_users(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """
    Return the rows with their users' names.

    Not joined: MariaDB then begins with the users, and sorts every row there is to show fifty.
    """
    return queryset.prefetch_related(Prefetch("user", get_user_model()._default_manager.only("username")))


def row_ids(term: str) -> list[int]:
    """Return the number that the term is, if it is one."""
    return [int(term)] if term.isascii() and term.isdigit() and len(term) < 10 else []


def note_action(request: HttpRequest, row: Model, done: str) -> None:
    """Write into the log what the operator did to a row; in the transaction in which it was done."""
    user: Any = getattr(row, "user", None)
    LogEntry.objects.create(
        user_id=cast(int, request.user.pk),
        content_type=ContentType.objects.get_for_model(type(row)),
        object_id=str(row.pk),
        object_repr=f"{row._meta.verbose_name} {row.pk} of {user}"[:200],
        action_flag=CHANGE,
        change_message=done,
    )
