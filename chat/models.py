"""Tables of conversations.

chat_runs is the truth of what was asked and answered: it is written in the request's own transaction, so reading
one's own writes never waits for a relay or a consumer. chat_histories and the counters are made from events.
"""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from chat.contracts import ChatStatus, RunState


class AgentChat(models.Model):
    """A conversation. Its row is what writers of its events lock first, so that commit order is event order."""

    chat_id = models.CharField(max_length=36)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    title = models.CharField(max_length=255, null=True, blank=True)
    system_prompt = models.TextField(null=True, blank=True)
    model = models.CharField(max_length=100, null=True, blank=True)
    message_count = models.IntegerField(default=0)
    tokens_total = models.IntegerField(default=0)
    last_message_at = models.DateTimeField(null=True, blank=True)
    status = models.CharField(max_length=32, default=ChatStatus.ACTIVE)
    # How many turns were begun; given out under the row's lock.
    turn_count = models.IntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "agent_chats"
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        indexes = [
            models.Index(fields=["user", "last_message_at"], name="idx_user_last"),
            models.Index(fields=["user", "status"], name="idx_user_status"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["chat_id"], name="uk_chat_id"),
            models.CheckConstraint(condition=models.Q(status__in=list(ChatStatus)), name="agent_chats_status"),
        ]

    def __str__(self) -> str:
        return self.chat_id


class ChatHistory(models.Model):
    """One message, written once by the handler of chat.history.persist.requested."""

    chat = models.ForeignKey(
        AgentChat,
        to_field="chat_id",
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
        db_column="chat_id",
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    message_content = models.TextField(null=True, blank=True)
    role = models.CharField(max_length=32, null=True, blank=True)
    tokens_consumed = models.IntegerField(default=0)
    # The event that wrote the row. Unique, so that a redelivery writes nothing even after its outbox row was pruned.
    source_event_id = models.CharField(max_length=64)
    run_id = models.CharField(max_length=36)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "chat_histories"
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        permissions = [("view_message_text", "Can read what users and the assistant wrote")]
        indexes = [
            models.Index(fields=["user", "chat"], name="idx_user_chat"),
            models.Index(fields=["chat"], name="idx_chat_id"),
        ]
        constraints = [models.UniqueConstraint(fields=["source_event_id"], name="uk_history_source_event")]

    def __str__(self) -> str:
        return f"{self.chat_id} {self.role} #{self.pk}"


class ChatRun(models.Model):
    """
    One turn of the assistant: the user's message, its answer, and how it ended.

    `is_live` is true while the run is queued or running and NULL afterwards: with the unique constraint the database
    itself allows one live run a conversation (MySQL has no partial index; NULLs do not collide).
    """

    id = models.CharField(primary_key=True, max_length=36)
    chat = models.ForeignKey(
        AgentChat,
        to_field="chat_id",
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
        db_column="chat_id",
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    turn_no = models.IntegerField()
    state = models.CharField(max_length=16, default=RunState.QUEUED)
    is_live = models.BooleanField(null=True, default=True)
    input_text = models.TextField()
    output_text = models.TextField(blank=True, default="")
    model = models.CharField(max_length=100)
    thinking = models.CharField(max_length=8, default="auto")
    error_code = models.CharField(max_length=64, blank=True, default="")
    prompt_tokens = models.IntegerField(default=0)
    completion_tokens = models.IntegerField(default=0)
    total_tokens = models.IntegerField(default=0)
    is_usage_estimated = models.BooleanField(default=False)
    # The executor that may write this row, and until when the others believe it alive.
    owner = models.CharField(max_length=64)
    lease_until = models.DateTimeField(null=True, blank=True)
    request_id = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "chat_runs"
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        indexes = [
            # serves: the search for live runs whose owner has died, and the dashboard's count of runs in flight
            models.Index(fields=["is_live", "lease_until"], name="idx_run_live_lease"),
            # serves: a user's runs in the admin
            models.Index(fields=["user", "created_at"], name="idx_run_user_created"),
            # serves: the admin's list of runs of one state, newest first
            models.Index(fields=["state", "created_at"], name="idx_run_state_created"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["chat", "turn_no"], name="uk_run_turn"),
            models.UniqueConstraint(fields=["chat", "is_live"], name="uk_run_live"),
            models.CheckConstraint(
                condition=models.Q(state__in=[RunState.QUEUED, RunState.RUNNING], is_live=True)
                | models.Q(
                    state__in=[RunState.FINISHED, RunState.FAILED, RunState.STOPPED],
                    is_live__isnull=True,
                    finished_at__isnull=False,
                ),
                name="chat_runs_state",
            ),
        ]

    def __str__(self) -> str:
        return self.id
