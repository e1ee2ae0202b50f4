"""Tables of accounts: users and their token sessions."""

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.utils.translation import gettext_lazy as _


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
    """A student or an operator. `token_usage` is one of the three sums of rule B."""

    id = models.AutoField(primary_key=True)
    username = models.CharField(max_length=45, unique=True)
    phone_number = models.CharField(max_length=18, blank=True, default="")
    token_limit = models.IntegerField(default=100_000)
    token_usage = models.IntegerField(default=0)
    last_reset_at = models.DateTimeField(null=True, blank=True)
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
