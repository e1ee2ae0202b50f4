"""Tables of conversations.

chat_runs holds the work: what was asked, who answers it, what was said so far. agent_timeline_events is the record a
page is rebuilt from. Both are written in the transaction of what happened, so reading one's own writes never waits for
a relay or a consumer; chat_histories, the counters and the ledger are made from events.
"""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from chat.contracts import ChatStatus, RunKind, RunState
from chat.memory_models import MemoryAuditLog, MemoryItem, MemorySettings

__all__ = [
    "AgentChat",
    "AgentStateSnapshot",
    "AgentTimelineEvent",
    "ChatHistory",
    "ChatRun",
    "MemoryAuditLog",
    "MemoryItem",
    "MemorySettings",
]


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
    # The last seq of the timeline; given out under the row's lock.
    timeline_seq = models.IntegerField(default=0)
    # {"version": 1, "stages": {"chat": {"summary", "watermark"}}}; the watermark is the last turn the summary covers.
    compaction_summary = models.TextField(null=True, blank=True)
    compaction_watermark = models.IntegerField(default=0)
    context_token_stats = models.JSONField(null=True, blank=True)
    # When a title may be made; NULL when none is wanted any more.
    title_due_at = models.DateTimeField(null=True, blank=True)
    title_attempts = models.SmallIntegerField(default=0)
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
            # serves: the list of a user's conversations and their number, both without reading a row that is not shown
            models.Index(fields=["user", "deleted_at", "last_message_at", "id", "status"], name="idx_user_shown"),
            # serves: the job that makes titles
            models.Index(fields=["title_due_at"], name="idx_chat_title_due"),
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
    One answer of the assistant: what it answers, what was said so far, and how it ended.

    A turn is a question and its answer; a regenerated answer is another variant of the same turn, one of them current.
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
    # No constraint: it would make each turn wait for the consumer that adds to the user's sum, and lock the user's row
    # after the quota's window, where others lock it before.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    kind = models.CharField(max_length=16, default=RunKind.TURN)
    turn_no = models.IntegerField()
    variant_no = models.IntegerField(default=1)
    is_current = models.BooleanField(default=True)
    state = models.CharField(max_length=16, default=RunState.QUEUED)
    is_live = models.BooleanField(null=True, default=True)
    input_text = models.TextField()
    output_text = models.TextField(blank=True, default="")
    # Structured events among the text: [{"at": characters before it, "data": ...}].
    output_events = models.JSONField(default=list, blank=True)
    # True from the moment a reader may have seen something: from then on the run is never executed anew.
    has_spoken = models.BooleanField(default=False)
    model = models.CharField(max_length=100)
    thinking = models.CharField(max_length=8, default="auto")
    language = models.CharField(max_length=16, default="en")
    error_code = models.CharField(max_length=64, blank=True, default="")
    retry_after_seconds = models.IntegerField(null=True, blank=True)
    prompt_tokens = models.IntegerField(default=0)
    completion_tokens = models.IntegerField(default=0)
    total_tokens = models.IntegerField(default=0)
    is_usage_estimated = models.BooleanField(default=False)
    # The executor that may write this row, and until when the others believe it alive. Without an owner: since when
    # the run waits for one. The epoch rises with each claim, so that an owner who was taken for dead is refused.
    owner = models.CharField(max_length=64, blank=True, default="")
    epoch = models.IntegerField(default=0)
    attempt = models.SmallIntegerField(default=1)
    held_tokens = models.IntegerField(default=0)
    # What earlier attempts are likely to have cost that died, or were given back, before their first word.
    lost_tokens = models.IntegerField(default=0)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
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
            # serves: the cap on one user's live runs
            models.Index(fields=["user", "is_live"], name="idx_run_user_live"),
            # serves: the admin's list of runs of one state, newest first
            models.Index(fields=["state", "created_at"], name="idx_run_state_created"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["chat", "turn_no", "variant_no"], name="uk_run_variant"),
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


class AgentTimelineEvent(models.Model):
    """One entry of a conversation's timeline. Written once, in the transaction of what it tells."""

    chat = models.ForeignKey(
        AgentChat,
        to_field="chat_id",
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
        db_column="chat_id",
    )
    # No constraint: it would make each entry wait for the consumer that adds to the user's sum, and lock the user's row
    # after the quota's window, where others lock it before.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    seq = models.IntegerField()
    kind = models.CharField(max_length=32)
    role = models.CharField(max_length=32)
    content = models.TextField(blank=True, default="")
    payload = models.JSONField(default=dict, blank=True)
    tokens_consumed = models.IntegerField(default=0)
    run_id = models.CharField(max_length=36, blank=True, default="")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "agent_timeline_events"
        verbose_name = _("timeline entry")
        verbose_name_plural = _("timeline entries")
        constraints = [
            # serves the page of a conversation too, in both directions
            models.UniqueConstraint(fields=["chat", "seq"], name="uk_timeline_seq"),
        ]

    def __str__(self) -> str:
        return f"{self.chat_id} #{self.seq} {self.kind}"


class AgentStateSnapshot(models.Model):
    """The assistant's state after its last run in a conversation; the newest revision wins."""

    conversation_id = models.CharField(max_length=36)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    phase = models.CharField(max_length=32)
    snapshot_json = models.TextField()
    revision = models.BigIntegerField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "agent_state_snapshot_records"
        verbose_name = _("state snapshot")
        verbose_name_plural = _("state snapshots")
        constraints = [models.UniqueConstraint(fields=["conversation_id"], name="uk_snapshot_conversation")]

    def __str__(self) -> str:
        return f"{self.conversation_id} r{self.revision}"
