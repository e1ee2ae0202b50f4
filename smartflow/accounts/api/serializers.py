"""Shapes of the account routes. Lengths are counted in bytes by the operations, not in characters here."""

from rest_framework import serializers

from smartflow.api.serializers import StrictSerializer


class RegisterRequest(StrictSerializer):
    """What registering takes."""

    username = serializers.CharField(help_text="At most 45 bytes, unique.")
    password = serializers.CharField(trim_whitespace=False, help_text="8 characters or more, at most 229 bytes.")
    phone_number = serializers.CharField(required=False, allow_blank=True, default="", help_text="At most 18 bytes.")


class LoginRequest(StrictSerializer):
    """What signing in takes."""

    username = serializers.CharField()
    password = serializers.CharField(trim_whitespace=False)


class RefreshRequest(StrictSerializer):
    """What a rotation takes."""

    refresh_token = serializers.CharField()


class EndAllRequest(StrictSerializer):
    """Whether the session that asks stays."""

    keep_current = serializers.BooleanField(required=False, default=False)


class RegisteredUser(serializers.Serializer[object]):
    """The new account."""

    id = serializers.IntegerField()


class TokenPairShape(serializers.Serializer[object]):
    """A pair of tokens of one session."""

    access_token = serializers.CharField()
    refresh_token = serializers.CharField()


class ProfileShape(serializers.Serializer[object]):
    """The user's own account."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    token_limit = serializers.IntegerField()
    token_usage = serializers.IntegerField(help_text="What was used in all, ever.")
    time_zone = serializers.CharField()


class ProfileChange(StrictSerializer):
    """What users may change of their account."""

    time_zone = serializers.CharField(
        allow_blank=True, help_text='An IANA name such as "Asia/Shanghai"; "" for the zone of the installation.'
    )


class PurposeUseShape(serializers.Serializer[object]):
    """Tokens that one purpose took."""

    purpose = serializers.CharField(source="name")
    tokens = serializers.IntegerField()


class ConversationUseShape(serializers.Serializer[object]):
    """Tokens that one conversation took."""

    conversation_id = serializers.CharField(source="name")
    tokens = serializers.IntegerField()


class QuotaShape(serializers.Serializer[object]):
    """The user's token quota in the current window."""

    limit = serializers.IntegerField(help_text="What a window allows.")
    granted = serializers.IntegerField(help_text="What an operator added to this window.")
    used = serializers.IntegerField()
    held = serializers.IntegerField(help_text="Set aside for answers that are being written.")
    left = serializers.IntegerField(help_text="limit + granted - used - held, and never below 0.")
    window_starts_at = serializers.DateTimeField()
    resets_at = serializers.DateTimeField(help_text="When the next window begins.")
    time_zone = serializers.CharField(help_text="The zone whose midnights windows begin at.")
    used_by_purpose = PurposeUseShape(many=True, help_text="The biggest first; follows `used` by a moment.")
    used_by_conversation = ConversationUseShape(many=True, help_text="The biggest first; follows `used` by a moment.")


class SessionShape(serializers.Serializer[object]):
    """One live session."""

    id = serializers.UUIDField()
    created_at = serializers.DateTimeField()
    refreshed_at = serializers.DateTimeField()
    user_agent = serializers.CharField()
    ip_address = serializers.IPAddressField(allow_null=True)
    is_current = serializers.BooleanField()


class EndedSessions(serializers.Serializer[object]):
    """How many sessions ended."""

    ended_count = serializers.IntegerField()
