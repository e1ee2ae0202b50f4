"""Shapes of requests and answers of the memory routes."""

from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext
from rest_framework import serializers

from chat.api.serializers import ConversationId
from chat.memory.items import MemoryTypeInvalid
from chat.memory_contracts import (
    CONTENT_MAX_CHARACTERS,
    HIGHEST_SENSITIVITY,
    REASON_MAX_CHARACTERS,
    SOURCE_MAX_CHARACTERS,
    TITLE_MAX_CHARACTERS,
    MemoryStatus,
    MemoryType,
    MemoryView,
)
from smartflow.api.fields import RowId, UserMoment
from smartflow.api.serializers import StrictSerializer

MAX_PAGE_SIZE = 100
_DEFAULT_STATUSES = (MemoryStatus.ACTIVE, MemoryStatus.ARCHIVED)


class TypeField(serializers.ChoiceField):
    """One of the types; anything else has a code of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=list(MemoryType), **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the type. Raises: MemoryTypeInvalid."""
        try:
            return str(super().to_internal_value(data))
        except serializers.ValidationError as error:
            raise MemoryTypeInvalid(fields={self.field_name or "": MemoryTypeInvalid.message}) from error


class WeightField(serializers.FloatField):
    """A number from 0 to 1."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=1, **kwargs)


class CsvField(serializers.CharField):
    """Several of the choices, separated by commas; blank is as good as left out."""

    def __init__(self, *, choices: list[str], **kwargs: Any) -> None:
        self.choices = choices
        super().__init__(required=False, allow_blank=True, max_length=200, **kwargs)

    def to_internal_value(self, data: Any) -> tuple[str, ...]:  # type: ignore[override]
        """Return the choices, each once."""
        given = [part.strip() for part in super().to_internal_value(data).split(",")]
        wanted = tuple(dict.fromkeys(part for part in given if part))
        if not set(wanted) <= set(self.choices):
            self.refuse()
        return wanted

    def refuse(self) -> None:
        """Raise what says which choices there are."""
        text = gettext("Give one or more of these, separated by commas: %(choices)s.")
        raise serializers.ValidationError(text % {"choices": ", ".join(self.choices)})


class TypesField(CsvField):
    """Several types; anything else has a code of its own."""

    def refuse(self) -> None:
        """Raise the code of a wrong type."""
        raise MemoryTypeInvalid(fields={self.field_name or "": MemoryTypeInvalid.message})


class Reason(StrictSerializer):
    """Why it is done; kept in the audit."""

    reason = serializers.CharField(
        max_length=REASON_MAX_CHARACTERS, required=False, allow_blank=True, help_text="Why; kept in the audit."
    )


class MemoryCreate(Reason):
    """An item to be added."""

    memory_type = TypeField()
    title = serializers.CharField(max_length=TITLE_MAX_CHARACTERS)
    content = serializers.CharField(max_length=CONTENT_MAX_CHARACTERS, allow_blank=True, trim_whitespace=False)
    conversation_id = ConversationId(
        required=False, allow_null=True, help_text="One of the user's; left out or null: for all conversations."
    )
    assistant_id = serializers.CharField(max_length=SOURCE_MAX_CHARACTERS, required=False, allow_null=True)
    run_id = serializers.CharField(max_length=SOURCE_MAX_CHARACTERS, required=False, allow_null=True)
    confidence = WeightField(required=False, help_text="0.95 when left out.")
    importance = WeightField(required=False, help_text="0.90 when left out.")
    sensitivity_level = serializers.IntegerField(
        min_value=0,
        max_value=HIGHEST_SENSITIVITY,
        required=False,
        help_text="0 harmless to 2 intimate; 0 when left out.",
    )
    is_explicit = serializers.BooleanField(
        required=False, help_text="Whether the user said it in so many words; true when left out."
    )
    ttl_at = UserMoment(
        required=False,
        allow_null=True,
        help_text="When it is to be forgotten. ISO 8601; without a zone in that of the user. null: never.",
    )


class MemoryUpdate(MemoryCreate):
    """What to change of an item: what is left out stays, null clears it."""

    memory_type = TypeField(required=False)
    title = serializers.CharField(max_length=TITLE_MAX_CHARACTERS, required=False)
    content = serializers.CharField(
        max_length=CONTENT_MAX_CHARACTERS, allow_blank=True, trim_whitespace=False, required=False
    )
    confidence = WeightField(required=False)
    importance = WeightField(required=False)
    sensitivity_level = serializers.IntegerField(min_value=0, max_value=HIGHEST_SENSITIVITY, required=False)
    is_explicit = serializers.BooleanField(required=False)
    clear_ttl = serializers.BooleanField(required=False, help_text="true is the same as ttl_at: null.")

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Turn clear_ttl into the value that it stands for."""
        if values.pop("clear_ttl", False):
            if values.get("ttl_at") is not None:
                text = gettext("Give either ttl_at or clear_ttl.")
                raise serializers.ValidationError({"clear_ttl": text})
            values["ttl_at"] = None
        return values


class OneItem(StrictSerializer):
    """Names an item."""

    id = RowId()


class MemoryListQuery(StrictSerializer):
    """What to list."""

    conversation_id = ConversationId(
        required=False, allow_blank=True, default="", help_text="Items of this conversation, and the global ones."
    )
    statuses = CsvField(choices=list(MemoryStatus), help_text="active,archived when left out; deleted besides.")
    status = CsvField(choices=list(MemoryStatus), help_text="The same as statuses.")
    memory_types = TypesField(choices=list(MemoryType), help_text="preference, constraint, fact; all when left out.")
    memory_type = TypesField(choices=list(MemoryType), help_text="The same as memory_types.")
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=20)
    cursor = serializers.CharField(
        max_length=100, required=False, help_text="The answer's header X-Next-Cursor; absent on the last page."
    )

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Join each pair of names."""
        for several, one in (("statuses", "status"), ("memory_types", "memory_type")):
            given = values.pop(one, ())
            if given and values.get(several):
                text = gettext("Give either %(several)s or %(one)s.") % {"several": several, "one": one}
                raise serializers.ValidationError({one: text})
            values[several] = values.get(several) or given
        values["statuses"] = values["statuses"] or _DEFAULT_STATUSES
        return values


class MemoryShape(serializers.Serializer[Any]):
    """One item."""

    id = serializers.IntegerField()
    user_id = serializers.IntegerField()
    conversation_id = serializers.CharField(required=False, help_text="Left out of an item for all conversations.")
    assistant_id = serializers.CharField(required=False, help_text="Left out without one.")
    run_id = serializers.CharField(required=False, help_text="Left out without one.")
    memory_type = serializers.ChoiceField(choices=list(MemoryType))
    title = serializers.CharField()
    content = serializers.CharField()
    content_hash = serializers.CharField(help_text="SHA-256, the same however a content is spaced or capitalised.")
    confidence = WeightField()
    importance = WeightField()
    sensitivity_level = serializers.IntegerField(min_value=0, max_value=HIGHEST_SENSITIVITY)
    is_explicit = serializers.BooleanField()
    status = serializers.CharField(help_text="active, archived or deleted")
    ttl_at = serializers.DateTimeField(required=False, help_text="Left out when it is never to be forgotten.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class SwitchesUpdate(Reason):
    """Which switches to turn: what is left out stays."""

    memory_enabled = serializers.BooleanField(required=False)
    implicit_memory_enabled = serializers.BooleanField(required=False)
    sensitive_memory_enabled = serializers.BooleanField(required=False)


class SwitchesShape(serializers.Serializer[Any]):
    """What the assistant may remember by itself; what the user adds by hand is kept in any case."""

    memory_enabled = serializers.BooleanField(help_text="Anything at all; true at first.")
    implicit_memory_enabled = serializers.BooleanField(
        help_text="Also what the user did not say in so many words; true at first."
    )
    sensitive_memory_enabled = serializers.BooleanField(help_text="Also what is sensitive; false at first.")


def memory_body(item: MemoryView, zone: ZoneInfo) -> dict[str, Any]:
    """Return an item in the form of MemoryShape, its moments in the user's zone."""
    body = {name: value for name, value in vars(item).items() if value is not None}
    for name in ("ttl_at", "created_at", "updated_at"):
        if name in body:
            body[name] = body[name].astimezone(zone).isoformat()
    return body
