"""Tables of accounts: users, their token sessions, what they used of the model and what they may use.

Which sum is made of which rows stands at the sums: User.token_usage, TokenWindow.used_tokens, TokenWindow.held_tokens.
ledger.find_… recomputes them.
"""

from typing import Any, ClassVar, NoReturn

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.utils.translation import gettext_lazy as _

from smartflow.accounts.contracts import EntryKind


class UserManager(BaseUserManager["User"]):
    """Creates users; Django's own commands need these two names."""

    def create_user(self, username: str, password: str | None = None, **fields: Any) -> "User":
        """Create a user whose password is stored hashed."""
        user = self.model(username=username, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, password: str | None = None, **fields: Any) -> "User":
        """Create a user who may do everything in the admin."""
        return self.create_user(username, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """
    A student or an operator.

    `token_limit` is what a window allows, always a number: 0 allows nothing, and nobody is without a limit.
    `token_usage` is one of the three sums of rule B: all the user's rows of the ledger of kind usage and adjust, of all
    time. `last_reset_at` is when the newest window began.
    """

    id = models.AutoField(primary_key=True)
    username = models.CharField(max_length=45, unique=True)
    phone_number = models.CharField(max_length=18, blank=True, default="")
    token_limit = models.IntegerField(default=100_000)
    token_usage = models.IntegerField(default=0)
    last_reset_at = models.DateTimeField(null=True, blank=True)
    # An IANA name; "" is the installation's zone.
    time_zone = models.CharField(max_length=64, blank=True, default="")
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(auto_now_add=True)

    objects = UserManager()

    USERNAME_FIELD = "username"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        db_table = "users"
        verbose_name = _("user")
        verbose_name_plural = _("users")
        permissions = [
            ("grant_tokens", "Can grant tokens to users"),
            ("adjust_tokens", "Can adjust what users have used"),
        ]
        indexes = [
            # serves: the admin's list of locked users
            models.Index(fields=["is_active", "id"], name="idx_user_active"),
            # serves: the admin's list of staff
            models.Index(fields=["is_staff", "id"], name="idx_user_staff"),
        ]

    def __str__(self) -> str:
        return self.username


class TokenSession(models.Model):
    """
    One sign-in on one device; every token carries its id as `sid` and dies with it.

    `refresh_jti` is the only refresh token that is good now: rotation is one guarded UPDATE on it, so of two requests
    with the same token one loses, and a lost race is treated as theft.
    """

    id = models.CharField(primary_key=True, max_length=36)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    refresh_jti = models.CharField(max_length=36)
    user_agent = models.CharField(max_length=255, blank=True, default="")
    ip_address = models.GenericIPAddressField(null=True, blank=True)
    created_at = models.DateTimeField()
    refreshed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoke_reason = models.CharField(max_length=32, blank=True, default="")

    class Meta:
        db_table = "token_sessions"
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        permissions = [("end_tokensession", "Can end sessions of users")]
        indexes = [
            # serves: a user's own list of sessions, newest first
            models.Index(fields=["user", "created_at"], name="idx_session_user_created"),
            # serves: pruning what expired long ago
            models.Index(fields=["expires_at"], name="idx_session_expires"),
        ]

    def __str__(self) -> str:
        return self.id


class TokenWindow(models.Model):
    """
    One week of a user's quota, opened by the first use. Whoever changes a hold locks its window first.

    used_tokens  = charged_tokens of the window's holds + total_tokens of its rows of the ledger of kind adjust
    held_tokens  = tokens of its holds that are not settled
    granted_tokens = total_tokens of its rows of the ledger of kind grant
    A request may hold n tokens while used + held + n <= the user's limit + granted. `used` may pass that: an answer
    that became longer than its hold is charged whole.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", db_index=False)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    granted_tokens = models.BigIntegerField(default=0)
    used_tokens = models.BigIntegerField(default=0)
    held_tokens = models.BigIntegerField(default=0)

    class Meta:
        db_table = "token_windows"
        verbose_name = _("quota window")
        verbose_name_plural = _("quota windows")
        constraints = [
            # serves: the user's newest window, too
            models.UniqueConstraint(fields=["user", "starts_at"], name="uk_window_user_start"),
            models.CheckConstraint(condition=models.Q(used_tokens__gte=0), name="token_windows_used"),
            models.CheckConstraint(condition=models.Q(held_tokens__gte=0), name="token_windows_held"),
            models.CheckConstraint(condition=models.Q(granted_tokens__gte=0), name="token_windows_granted"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.starts_at:%Y-%m-%d}"


class TokenHold(models.Model):
    """
    Tokens set aside for one run, and what it took in the end. Stays as the proof of what its window was charged.

    live: settled_at is NULL. Settled: charged_tokens is what was charged. Released because it expired: settled_at is
    set and charged_tokens NULL; a late settlement still charges it.
    """

    hold_id = models.CharField(primary_key=True, max_length=64)
    # No constraint: it would make each hold wait for the consumer that adds to the users' sums.
    user = models.ForeignKey(User, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    window = models.ForeignKey(TokenWindow, on_delete=models.CASCADE, related_name="+", db_index=False)
    tokens = models.BigIntegerField()
    expires_at = models.DateTimeField()
    charged_tokens = models.BigIntegerField(null=True, blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "token_holds"
        verbose_name = _("token hold")
        verbose_name_plural = _("token holds")
        indexes = [
            # serves: a window's live holds, and the sum over all of them
            models.Index(fields=["window", "settled_at"], name="idx_hold_window_settled"),
            # serves: the job that releases expired holds
            models.Index(fields=["settled_at", "expires_at"], name="idx_hold_settled_expires"),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(tokens__gte=0), name="token_holds_tokens"),
            models.CheckConstraint(condition=models.Q(charged_tokens__gte=0), name="token_holds_charged"),
            models.CheckConstraint(
                condition=models.Q(charged_tokens__isnull=True) | models.Q(settled_at__isnull=False),
                name="token_holds_charged_is_settled",
            ),
        ]

    def __str__(self) -> str:
        return self.hold_id


class AppendOnly(models.QuerySet["TokenLedgerEntry"]):
    """Rows that are written once: whoever finds one wrong appends another that corrects it."""

    def update(self, **values: Any) -> NoReturn:
        """Refuse."""
        raise TypeError("These rows are never changed: append one that corrects them.")

    def delete(self) -> NoReturn:
        """Refuse."""
        raise TypeError("These rows are never deleted: append one that corrects them.")


class TokenLedgerEntry(models.Model):
    """
    One row per call to a model, grant or adjustment. Append-only: nothing in the product changes or deletes one.

    `total_tokens` is the row's amount, negative only in an adjustment or in a grant taken back.
    """

    entry_key = models.CharField(max_length=100)
    # No constraint: it would lock the user's row, in another order than the consumer that adds to the users' sums.
    user = models.ForeignKey(User, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    conversation_id = models.CharField(max_length=36, blank=True, default="")
    run_id = models.CharField(max_length=36, blank=True, default="")
    kind = models.CharField(max_length=8, default=EntryKind.USAGE)
    purpose = models.CharField(max_length=32, blank=True, default="")
    model = models.CharField(max_length=100, blank=True, default="")
    input_tokens = models.IntegerField(default=0)
    cached_tokens = models.IntegerField(default=0)
    output_tokens = models.IntegerField(default=0)
    reasoning_tokens = models.IntegerField(default=0)
    total_tokens = models.IntegerField()
    is_estimated = models.BooleanField(default=False)
    reason = models.CharField(max_length=255, blank=True, default="")
    actor = models.ForeignKey(
        User, on_delete=models.DO_NOTHING, null=True, blank=True, related_name="+", db_index=False, db_constraint=False
    )
    request_id = models.CharField(max_length=64, blank=True, default="")
    window = models.ForeignKey(
        TokenWindow, on_delete=models.DO_NOTHING, null=True, blank=True, related_name="+", db_constraint=False
    )
    created_at = models.DateTimeField()

    objects = AppendOnly.as_manager()

    class Meta:
        db_table = "token_ledger"
        verbose_name = _("ledger entry")
        verbose_name_plural = _("token ledger")
        indexes = [
            # serves: a user's entries by time
            models.Index(fields=["user", "created_at"], name="idx_ledger_user_created"),
            # serves: a conversation's entries, and its sum
            models.Index(fields=["conversation_id"], name="idx_ledger_conversation"),
            # serves: a run's entries
            models.Index(fields=["run_id"], name="idx_ledger_run"),
            # serves: what operators granted and adjusted, among millions of calls
            models.Index(fields=["kind"], name="idx_ledger_kind"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["entry_key"], name="uk_ledger_entry_key"),
            models.CheckConstraint(condition=models.Q(kind__in=list(EntryKind)), name="token_ledger_kind"),
        ]

    def __str__(self) -> str:
        return self.entry_key

    def save(self, **options: Any) -> None:
        """Write a new row; refuse to write an old one again."""
        if not self._state.adding:
            raise TypeError("These rows are never changed: append one that corrects them.")
        super().save(**options)

    def delete(self, using: Any = None, keep_parents: bool = False) -> NoReturn:
        """Refuse."""
        raise TypeError("These rows are never deleted: append one that corrects them.")
