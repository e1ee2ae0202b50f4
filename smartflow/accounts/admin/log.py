"""The line that an operator's action leaves in the log."""

from typing import cast

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.http import HttpRequest


def note_action(request: HttpRequest, row: Model, *, name: str, done: str) -> None:
    """Write what the operator did to a row, in the transaction in which it was done; `name` is what to call the row."""
    LogEntry.objects.create(
        user_id=cast(int, request.user.pk),
        content_type=ContentType.objects.get_for_model(type(row)),
        object_id=str(row.pk),
        object_repr=name[:200],
        action_flag=CHANGE,
        change_message=done,
    )
