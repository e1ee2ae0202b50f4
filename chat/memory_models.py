"""Tables of the long-term memory: what the assistant knows of a user, who changed it, and what the user allows."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from chat.memory_contracts import (
    HIGHEST_SENSITIVITY,
    REASON_MAX_CHARACTERS,
    SOURCE_MAX_CHARACTERS,
    TITLE_MAX_CHARACTERS,
    AuditAction,
    AuthorKind,
    MemoryStatus,
    MemoryType,
)


class MemoryItem(models.Model):
    """
    One thing to remember of a user. Its writers lock its row first.

    The conversation is no foreign key: what was learned in it outlives it, and a key would lock its row.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    # NULL: global, for all of the user's conversations.
    conversation_id = models.CharField(max_length=36, null=True, blank=True)
    # Where it comes from, as whoever wrote it said.
    assistant_id = models.CharField(max_length=SOURCE_MAX_CHARACTERS, null=True, blank=True)
    run_id = models.CharField(max_length=SOURCE_MAX_CHARACTERS, null=True, blank=True)
    memory_type = models.CharField(max_length=16)
    title = models.CharField(max_length=TITLE_MAX_CHARACTERS)
    content = models.TextField()
    content_hash = models.CharField(max_length=64)
    confidence = models.FloatField()
    importance = models.FloatField()
    sensitivity_level = models.SmallIntegerField()
    is_explicit = models.BooleanField()
    status = models.CharField(max_length=16, default=MemoryStatus.ACTIVE)
    # When the assistant forgets it; NULL: never.
    ttl_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "memory_items"
        verbose_name = _("memory item")
        verbose_name_plural = _("memory items")
        indexes = [
            # serves: a user's list, newest first, which reads rows of the page only; and the admin's search by user
            models.Index(
                fields=["user", "created_at", "id", "status", "memory_type", "conversation_id"],
                name="idx_memory_user_list",
            ),
            # serve: the admin's lists by status, by type and by both, newest first
            models.Index(fields=["status", "id"], name="idx_memory_status"),
            models.Index(fields=["memory_type", "id"], name="idx_memory_type"),
            models.Index(fields=["status", "memory_type", "id"], name="idx_memory_status_type"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(memory_type__in=list(MemoryType)), name="memory_items_type"),
            models.CheckConstraint(condition=Q(status__in=list(MemoryStatus)), name="memory_items_status"),
            models.CheckConstraint(
                condition=Q(confidence__range=(0, 1), importance__range=(0, 1)), name="memory_items_weights"
            ),
            models.CheckConstraint(
                condition=Q(sensitivity_level__range=(0, HIGHEST_SENSITIVITY)), name="memory_items_sensitivity"
            ),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class MemoryAuditLog(models.Model):
    """
    One change of an item, or of a user's switches, then without an item.

    Written in the transaction of what it tells, and never edited.
    """

    item = models.ForeignKey(MemoryItem, on_delete=models.CASCADE, related_name="+", null=True, db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    action = models.CharField(max_length=16)
    # The whole item or all switches; NULL before a creation.
    before = models.JSONField(null=True)
    after = models.JSONField()
    author_kind = models.CharField(max_length=16)
    # The user or the operator. No foreign key: an operator's account may go, the line stays.
    author_id = models.BigIntegerField(null=True)
    reason = models.CharField(max_length=REASON_MAX_CHARACTERS, blank=True, default="")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "memory_audit_logs"
        verbose_name = _("change of the memory")
        verbose_name_plural = _("changes of the memory")
        indexes = [
            # serves: an item's changes, newest first
            models.Index(fields=["item", "id"], name="idx_memory_audit_item"),
            # serves: the admin's search by user
            models.Index(fields=["user", "id"], name="idx_memory_audit_user"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(action__in=list(AuditAction)), name="memory_audit_logs_action"),
            models.CheckConstraint(condition=Q(author_kind__in=list(AuthorKind)), name="memory_audit_logs_author"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk} {self.action}"


class MemorySettings(models.Model):
    """A user's switches; without a row they stand as MemorySwitches says."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+")
    memory_enabled = models.BooleanField()
    implicit_memory_enabled = models.BooleanField()
    sensitive_memory_enabled = models.BooleanField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "memory_user_settings"
        verbose_name = _("memory settings")
        verbose_name_plural = _("memory settings")

    def __str__(self) -> str:
        return f"#{self.pk}"
