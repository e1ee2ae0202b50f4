"""What the page's two task forms take, with the API's fields and bounds."""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from rest_framework import serializers

from smartflow.api.fields import UserMoment
from smartflow.kernel.ids import is_uuid, new_uuid
from tasks.defaults import FEWEST_SECTIONS, MOST_SECTIONS

# As the operations have it, which check again.
TITLE_MAX_CHARACTERS = 255
FIELDS = ("title", "deadline_at", "estimated_sections")


class _TaskFields(serializers.Serializer[Any]):
    title = serializers.CharField(max_length=TITLE_MAX_CHARACTERS)
    deadline_at = UserMoment(allow_null=True)
    estimated_sections = serializers.IntegerField(allow_null=True, min_value=FEWEST_SECTIONS, max_value=MOST_SECTIONS)


class TaskForm:
    """One form as it came: what was typed, what it means, and what is wrong with it; without `typed` an empty one."""

    def __init__(self, typed: Mapping[str, str] | None = None, *, zone: ZoneInfo) -> None:
        is_empty, typed = typed is None, typed or {}
        self.typed = {name: typed.get(name, "") for name in FIELDS}
        self.key = typed.get("key", "") if is_uuid(typed.get("key", "")) else new_uuid()
        given = {name: text.strip() or None for name, text in self.typed.items()} | {"title": self.typed["title"]}
        fields = _TaskFields(data=given, context={"zone": zone})
        self.is_valid = fields.is_valid()
        self.values: dict[str, Any] = dict(fields.validated_data) if self.is_valid else {}
        errors: Mapping[str, list[str]] = {} if is_empty else fields.errors
        self.errors = {name: " ".join(str(text) for text in texts) for name, texts in errors.items()}
