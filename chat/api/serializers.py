"""Shapes of requests and answers of the chat routes."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.utils.translation import gettext
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from chat.contracts import ChatStatus, Role, RunState, TimelineItem, TimelineKind
from smartflow.api.serializers import StrictSerializer
from smartflow.kernel.ids import is_uuid

MAX_PAGE_SIZE = 100


@extend_schema_field({"type": "string", "format": "uuid"})
class ConversationId(serializers.CharField):
    """A UUID in any case; blank where it may be left out."""

    def to_internal_value(self, data: Any) -> str:
        """Return the canonical lower-case form."""
        text = super().to_internal_value(data).strip().lower()
        if text and not is_uuid(text):
            raise serializers.ValidationError(gettext("This is not a conversation's id: give a UUID."))
        return text


@extend_schema_field({"oneOf": [{"type": "string", "enum": ["auto", "true", "false"]}, {"type": "boolean"}]})
class Thinking(serializers.ChoiceField):
    """auto, true or false; older clients send a boolean."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=["auto", "true", "false"], **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the choice as text."""
        return str(super().to_internal_value(str(data).lower() if isinstance(data, bool) else data))


class ChatRequest(StrictSerializer):
    """What a user sends in one turn."""

    conversation_id = ConversationId(
        required=False,
        allow_null=True,
        allow_blank=True,
        default=None,
        help_text="Leave it out to open a new conversation; the answer's header X-Conversation-ID names it.",
    )
    message = serializers.CharField(trim_whitespace=False, help_text="At most 256 KiB of UTF-8.")
    model = serializers.ChoiceField(choices=["worker", "strategist"], default="worker")
    thinking = Thinking(default="auto")

    def validate_message(self, message: str) -> str:
        """Refuse blanks and what exceeds the limit in bytes."""
        if not message.strip():
            raise serializers.ValidationError(gettext("Say something."), code="blank")
        size = len(message.encode())
        if size > settings.CHAT_MAX_MESSAGE_BYTES:
            text = gettext("At most %(limit)d bytes; this message has %(size)d.")
            limits = {"limit": settings.CHAT_MAX_MESSAGE_BYTES, "size": size}
            raise serializers.ValidationError(text % limits, code="max_length")
        return message


class OneConversation(StrictSerializer):
    """The query of a route about one conversation."""

    conversation_id = ConversationId()


class ConversationListQuery(StrictSerializer):
    """The query of the list. `limit` is an older name of `page_size` and outranks it."""

    page = serializers.IntegerField(min_value=1, max_value=1_000_000, default=1)
    page_size = serializers.IntegerField(min_value=1, default=20)
    limit = serializers.IntegerField(min_value=1, required=False)
    status = serializers.ChoiceField(choices=["", *ChatStatus], default="", allow_blank=True)

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Settle on one page size."""
        wanted = values.pop("limit", None) or values["page_size"]
        return {**values, "page_size": min(wanted, MAX_PAGE_SIZE)}


class TimelineQuery(OneConversation):
    """The query of the timeline."""

    before_seq = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, help_text="Show what came before this entry."
    )
    after_seq = serializers.IntegerField(
        min_value=0, max_value=2**31 - 1, required=False, help_text="Show what came after this entry, oldest first."
    )
    limit = serializers.IntegerField(min_value=1, max_value=500, default=400)

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse both directions at once."""
        if "before_seq" in values and "after_seq" in values:
            raise serializers.ValidationError({"after_seq": gettext("Give before_seq or after_seq, not both.")})
        return values


class ConversationChange(StrictSerializer):
    """What a user may change of a conversation; at least one."""

    title = serializers.CharField(max_length=255, required=False)
    status = serializers.ChoiceField(choices=list(ChatStatus), required=False)

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse a change of nothing."""
        if not values:
            raise serializers.ValidationError({"body": gettext("Give a title, a status, or both.")}, code="required")
        return values


class ConversationShape(serializers.Serializer[Any]):
    """One conversation."""

    conversation_id = serializers.UUIDField()
    title = serializers.CharField(help_text="Empty until one is given.")
    has_title = serializers.BooleanField()
    message_count = serializers.IntegerField(help_text="Messages handled so far; follows within moments.")
    last_message_at = serializers.DateTimeField(allow_null=True)
    status = serializers.ChoiceField(choices=list(ChatStatus))
    created_at = serializers.DateTimeField()
    live_run_id = serializers.UUIDField(
        allow_null=True, help_text="The answer under way, to be followed by its events; null in lists."
    )


class ConversationPageShape(serializers.Serializer[Any]):
    """One page of conversations."""

    list = ConversationShape(many=True)
    page = serializers.IntegerField()
    page_size = serializers.IntegerField()
    limit = serializers.IntegerField(source="page_size", help_text="The same as page_size.")
    total = serializers.IntegerField()
    has_more = serializers.BooleanField()


class TimelineItemShape(serializers.Serializer[Any]):
    """One entry of the timeline."""

    id = serializers.IntegerField()
    seq = serializers.IntegerField(help_text="Rises by time within the conversation.")
    kind = serializers.ChoiceField(choices=list(TimelineKind))
    role = serializers.ChoiceField(choices=list(Role))
    content = serializers.CharField()
    payload = serializers.DictField(
        help_text=(
            "run_id, turn_no; of an answer also state (finished, failed, stopped), variant_no, model, error_code. "
            "Of a turn's answers the one counts that was selected last, or that last came to say something."
        )
    )
    tokens_consumed = serializers.IntegerField()
    created_at = serializers.DateTimeField()


def show_timeline(items: Sequence[TimelineItem]) -> list[dict[str, Any]]:
    """Return what TimelineItemShape documents; it would take three times as long for a page of hundreds."""
    moment = serializers.DateTimeField()
    return [{**vars(item), "created_at": moment.to_representation(item.created_at)} for item in items]


class ContextStatsShape(serializers.Serializer[Any]):
    """Estimated tokens of what the model was last sent."""

    msg0 = serializers.IntegerField(help_text="Rules and tools.")
    msg1 = serializers.IntegerField(help_text="The conversation, or the summary of its older part.")
    msg2 = serializers.IntegerField(help_text="The workspace of the present stage.")
    msg3 = serializers.IntegerField(help_text="State, memory and what the user said last.")
    total = serializers.IntegerField(help_text="All four together.")
    budget = serializers.IntegerField(help_text="What is allowed before the older part is made into a summary.")


class VariantShape(serializers.Serializer[Any]):
    """One of the answers to a question."""

    run_id = serializers.UUIDField()
    variant_no = serializers.IntegerField(help_text="Counts from 1.")
    is_current = serializers.BooleanField(help_text="Whether this is the one the assistant remembers.")
    state = serializers.ChoiceField(choices=list(RunState))
    content = serializers.CharField()
    created_at = serializers.DateTimeField()
