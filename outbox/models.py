"""Tables of the outbox: the events, and the local transport's messages.

Status only moves forward by automatic writers: pending → published → consumed, back to pending after a failure, dead
at the end. `consumed` and `dead` are final; every UPDATE says so in its WHERE.
"""

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """Who sets it: append · relay · dispatch · relay or dispatch; an operator may move `dead` back to `pending`."""

    PENDING = "pending"
    PUBLISHED = "published"
    CONSUMED = "consumed"
    DEAD = "dead"


FINAL = (Status.CONSUMED, Status.DEAD)


class OutboxMessage(models.Model):
    """One event, from the writer's transaction to its handler's."""

    event_id = models.CharField(max_length=64)
    biz_type = models.CharField("event type", max_length=64)
    topic = models.CharField(max_length=128)
    message_key = models.CharField(max_length=128)
    payload = models.TextField()
    status = models.CharField(max_length=32, choices=Status.choices, default=Status.PENDING)
    retry_count = models.IntegerField(default=0)
    max_retry = models.IntegerField(default=20)
    next_retry_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(null=True, blank=True)
    # The relay that holds the row, and until when. A settle needs the token; an expired lease may be claimed again.
    claim_token = models.CharField(max_length=36, null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    request_id = models.CharField(max_length=64, blank=True, default="")
    published_at = models.DateTimeField(null=True, blank=True)
    consumed_at = models.DateTimeField(null=True, blank=True)
    # Set when an operator gives a dead row up; it stays visible until it is pruned.
    discarded_at = models.DateTimeField(null=True, blank=True)
    discard_reason = models.CharField(max_length=255, blank=True, default="")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "agent_outbox_messages"
        verbose_name = _("outbox row")
        verbose_name_plural = _("outbox rows")
        permissions = [
            ("view_payload", "Can read the payload of outbox rows"),
            ("requeue_outboxmessage", "Can send dead letters round again"),
            ("discard_outboxmessage", "Can give dead letters up"),
        ]
        indexes = [
            models.Index(fields=["status", "next_retry_at", "biz_type"], name="idx_outbox_status_next"),
            # serves: claim, rescan, dead letters and prune, each by status in the order of id without a sort
            models.Index(fields=["status", "id"], name="idx_outbox_status_id"),
            # serves: the order per key: is an earlier row of this key unfinished?
            models.Index(fields=["message_key", "status", "id"], name="idx_outbox_key_status"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["event_id"], name="uk_outbox_event_id"),
            models.CheckConstraint(condition=models.Q(status__in=Status.values), name="outbox_status"),
            models.CheckConstraint(
                condition=~models.Q(status=Status.CONSUMED) | models.Q(consumed_at__isnull=False),
                name="outbox_consumed_has_time",
            ),
            models.CheckConstraint(
                condition=~models.Q(status=Status.PUBLISHED) | models.Q(published_at__isnull=False),
                name="outbox_published_has_time",
            ),
            # only a pending row can be claimed; a token without a lease would never expire
            models.CheckConstraint(
                condition=models.Q(claim_token__isnull=True, lease_until__isnull=True)
                | models.Q(claim_token__isnull=False, lease_until__isnull=False, status=Status.PENDING),
                name="outbox_claim_is_pending",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.biz_type} #{self.pk}"


class DeadLetter(OutboxMessage):
    """The same rows under the name operators look for; its pages show those with status `dead` only."""

    class Meta:
        proxy = True
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        # Seeing and moving dead letters is governed by the permissions of OutboxMessage.
        default_permissions = ()


class LocalMessage(models.Model):
    """A message of the local transport: published, and not yet acknowledged by the consumer."""

    topic = models.CharField(max_length=128)
    message_key = models.CharField(max_length=128)
    value = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "outbox_local_messages"

    def __str__(self) -> str:
        return f"{self.topic} #{self.pk}"
