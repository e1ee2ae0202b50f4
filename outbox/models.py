"""Tables of the outbox: the events, what holds a key back, who works on them, and what operators did.

Status only moves forward by automatic writers: pending → published → consumed, back to pending after a failure, dead
at the end. `consumed` and `dead` are final: an UPDATE is fenced by the claim's token, or its row locked and read first.
"""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """Who sets it: append · relay · dispatch · relay or dispatch; an operator may move `dead` back to `pending`."""

    PENDING = "pending"
    PUBLISHED = "published"
    CONSUMED = "consumed"
    DEAD = "dead"


ACTION_IDS_LENGTH = 255
FINAL = (Status.CONSUMED, Status.DEAD)


class OutboxMessage(models.Model):
    """
    One event, from the writer's transaction to its handler's.

    A pending row is one of: ready (`ready_shard` set; in flight while a lease runs), waiting (`next_retry_at` set) or
    held (neither: behind a dead letter that blocks its key, or of a paused type; see KeyHold).
    """

    event_id = models.CharField(max_length=64)
    biz_type = models.CharField("event type", max_length=64)
    topic = models.CharField(max_length=128)
    message_key = models.CharField(max_length=128)
    payload = models.TextField()
    status = models.CharField(max_length=32, choices=Status.choices, default=Status.PENDING)
    # The key's share of the work, and the same again exactly while a relay may claim the row.
    shard = models.PositiveSmallIntegerField()
    ready_shard = models.PositiveSmallIntegerField(null=True, blank=True)
    # Since when it is ready, where that is later than when it was written: it waited, was held, or goes round again.
    ready_at = models.DateTimeField(null=True, blank=True)
    retry_count = models.IntegerField(default=0)
    max_retry = models.IntegerField(default=20)
    # When a pending row is tried next. Discarding sets it too, which takes the row out of that range of
    # idx_outbox_status_next where open dead letters are counted and found: no number of discarded ones hides one.
    next_retry_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(null=True, blank=True)
    # The relay that holds the row, and until when. A settle needs the token; an expired lease may be claimed again.
    claim_token = models.CharField(max_length=36, null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    request_id = models.CharField(max_length=64, blank=True, default="")
    # W3C trace context of the writer; empty when tracing is off.
    traceparent = models.CharField(max_length=55, blank=True, default="")
    # Where the broker keeps the message: the transport's own numbers. Null for the local transport.
    published_partition = models.IntegerField(null=True, blank=True)
    published_offset = models.BigIntegerField(null=True, blank=True)
    published_by = models.CharField(max_length=64, blank=True, default="")
    published_at = models.DateTimeField(null=True, blank=True)
    consumed_by = models.CharField(max_length=64, blank=True, default="")
    consumed_at = models.DateTimeField(null=True, blank=True)
    # Set when an operator gives a dead row up; it stays visible until it is pruned.
    discarded_at = models.DateTimeField(null=True, blank=True)
    discard_reason = models.CharField(max_length=255, blank=True, default="")
    # The operators' records that moved the row, oldest first: their numbers with a space behind each. Where there is no
    # more room the oldest ones are cut off.
    action_ids = models.CharField(max_length=ACTION_IDS_LENGTH, blank=True, default="", db_default="")
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
            ("pause_outboxmessage", "Can pause event types and let them go on"),
        ]
        indexes = [
            # serves: retries that are due; the rows of a paused type; open dead letters, by type
            models.Index(fields=["status", "next_retry_at", "biz_type"], name="idx_outbox_status_next"),
            # serves: claim. Finished rows share one null, which no transition after publishing touches
            models.Index(fields=["ready_shard", "id"], name="idx_outbox_ready"),
            # serves: dead letters and prune, each by status in the order of id without a sort
            models.Index(fields=["status", "id"], name="idx_outbox_status_id"),
            # serves: rescan, the first and the last published row of each partition
            models.Index(
                fields=["status", "published_partition", "topic", "published_offset"], name="idx_outbox_place"
            ),
            # serves: the order per key: is an earlier row of this key unfinished?
            models.Index(fields=["message_key", "status", "id"], name="idx_outbox_key_status"),
            # serves: an operator who looks for what one request caused
            models.Index(fields=["request_id"], name="idx_outbox_request"),
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
            # see next_retry_at: an open dead letter that looked discarded would wait unseen for ever
            models.CheckConstraint(
                condition=~models.Q(status=Status.DEAD)
                | models.Q(discarded_at__isnull=False)
                | models.Q(next_retry_at__isnull=True),
                name="outbox_open_dead_has_no_try",
            ),
            # only a pending row can be claimed; a token without a lease would never expire
            models.CheckConstraint(
                condition=models.Q(claim_token__isnull=True, lease_until__isnull=True)
                | models.Q(claim_token__isnull=False, lease_until__isnull=False, ready_shard__isnull=False),
                name="outbox_claim_is_ready",
            ),
            # a finished row that looked ready would be published for ever; one that waits is not ready
            models.CheckConstraint(
                condition=models.Q(ready_shard__isnull=True)
                | models.Q(ready_shard=models.F("shard"), status=Status.PENDING, next_retry_at__isnull=True),
                name="outbox_ready_is_pending",
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


class Attempt(models.Model):
    """One try that failed, to publish or to handle a row. What went well is on the row itself."""

    class Step(models.TextChoices):
        """Which part of the way."""

        PUBLISH = "publish"
        HANDLE = "handle"

    # no foreign key: it would lock the row's parent, and prune deletes both by number
    message_id = models.BigIntegerField()
    step = models.CharField(max_length=8, choices=Step.choices)
    number = models.IntegerField()
    at = models.DateTimeField()
    seconds = models.FloatField()
    by = models.CharField(max_length=64)
    error = models.TextField()

    class Meta:
        db_table = "outbox_attempts"
        indexes = [models.Index(fields=["message_id", "id"], name="idx_outbox_attempt_message")]

    def __str__(self) -> str:
        return f"{self.step} {self.number} of #{self.message_id}"


class KeyHold(models.Model):
    """
    A key with held rows, and the row they wait behind.

    Every held row's key has one: it is written in the transaction that holds the row, under the lock of this row.
    """

    message_key = models.CharField(max_length=128, primary_key=True)
    head_id = models.BigIntegerField()
    since = models.DateTimeField()

    class Meta:
        db_table = "outbox_key_holds"
        verbose_name = _("blocked key")
        verbose_name_plural = _("blocked keys")

    def __str__(self) -> str:
        return f"{self.message_key} behind #{self.head_id}"


class PausedType(models.Model):
    """An event type that relays leave alone; its rows are held until the row here is gone."""

    event_type = models.CharField(max_length=64, primary_key=True)
    reason = models.CharField(max_length=255)
    by = models.CharField(max_length=150)
    paused_at = models.DateTimeField()

    class Meta:
        db_table = "outbox_paused_types"

    def __str__(self) -> str:
        return self.event_type


class Worker(models.Model):
    """A relay or a consumer: who it is, when it was last heard of, and what it says of itself."""

    class Kind(models.TextChoices):
        """What it does."""

        RELAY = "relay"
        CONSUMER = "consumer"

    # relays: one row a slot, taken by whoever holds the lease; consumers: one row a process
    name = models.CharField(max_length=64, primary_key=True)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    owner = models.CharField(max_length=64, blank=True, default="")
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    lease_until = models.DateTimeField()
    state = models.JSONField(default=dict)

    class Meta:
        db_table = "outbox_workers"

    def __str__(self) -> str:
        return self.name


class MinuteCount(models.Model):
    """What happened in one minute, added up by every worker's heartbeat."""

    minute = models.DateTimeField(primary_key=True)
    written = models.BigIntegerField(default=0)
    published = models.BigIntegerField(default=0)
    consumed = models.BigIntegerField(default=0)
    retried = models.BigIntegerField(default=0)
    dead = models.BigIntegerField(default=0)
    fenced = models.BigIntegerField(default=0)
    duplicates = models.BigIntegerField(default=0)
    violations = models.BigIntegerField(default=0)
    conflicts = models.BigIntegerField(default=0)

    class Meta:
        db_table = "outbox_minute_counts"

    def __str__(self) -> str:
        return self.minute.isoformat()


class OperatorAction(models.Model):
    """What an operator asked for and what came of it: the audit entry, and the background work's own progress."""

    class Verb(models.TextChoices):
        """What to do with the rows."""

        REQUEUE = "requeue", _("requeue")
        DISCARD = "discard", _("discard")
        PAUSE = "pause", _("pause")
        RESUME = "resume", _("resume")
        PRUNE = "prune", _("prune")

    class State(models.TextChoices):
        """How far it is."""

        WAITING = "waiting", _("waiting")
        RUNNING = "running", _("running")
        DONE = "done", _("done")
        STOPPED = "stopped", _("stopped")

    verb = models.CharField(max_length=16, choices=Verb.choices)
    # which rows or event type; the form of outbox.selection.Selection.to_json
    selection = models.JSONField(default=dict)
    reason = models.CharField(max_length=255)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    # kept when the account goes; a command's is the name of the system's user
    by = models.CharField(max_length=150)
    requested_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.WAITING)
    expected_count = models.IntegerField(default=0)
    done_count = models.IntegerField(default=0)
    # everything up to this row has been looked at
    after_id = models.BigIntegerField(default=0)
    is_stop_requested = models.BooleanField(default=False)
    stopped_by = models.CharField(max_length=150, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "outbox_operator_actions"
        verbose_name = _("operator action")
        verbose_name_plural = _("operator actions")
        # written by the verbs, never by hand
        default_permissions = ("view",)
        # serves: what the background job has to do next
        indexes = [models.Index(fields=["state", "id"], name="idx_outbox_action_state")]

    def __str__(self) -> str:
        return f"{self.verb} #{self.pk}"


class LocalMessage(models.Model):
    """A message of the local transport: published, and not yet acknowledged by the consumer."""

    outbox_id = models.BigIntegerField(db_index=True)
    topic = models.CharField(max_length=128)
    message_key = models.CharField(max_length=128)
    value = models.TextField()
    # what a broker would carry beside the value: pairs of texts
    headers = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "outbox_local_messages"

    def __str__(self) -> str:
        return f"{self.topic} #{self.pk}"
