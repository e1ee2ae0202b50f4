"""The edge's table: which requests were answered, and how."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class IdempotencyRecord(models.Model):
    """
    One key of one user: claimed by a request, and later the answer that every repetition gets.

    While `status` is null a request with this `token` is at work, until `lease_until` at the latest; the UPDATE that
    fills it in stands in the transaction of the request's effect. `user_id` is no foreign key: inserting would lock
    the user's row, which the token quota writes to, and the record is gone after a day anyway.
    """

    user_id = models.BigIntegerField()
    key = models.CharField(max_length=128)
    # Of method, path and body: the same key for another request is refused.
    fingerprint = models.CharField(max_length=64)
    token = models.CharField(max_length=36)
    lease_until = models.DateTimeField()
    expires_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True)
    body = models.TextField(default="")

    class Meta:
        db_table = "idempotency_records"
        verbose_name = _("idempotency record")
        verbose_name_plural = _("idempotency records")
        constraints = [models.UniqueConstraint(fields=["user_id", "key"], name="uq_idempotency_user_key")]
        # The pruning job looks for what has expired.
        indexes = [models.Index(fields=["expires_at"], name="idx_idempotency_expires")]

    def __str__(self) -> str:
        return self.key
