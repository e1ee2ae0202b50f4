"""Creates the operator `admin` once. A generated password is printed once and stored nowhere in clear."""

import secrets
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from smartflow.accounts.models import User
from smartflow.accounts.operations import UsernameTaken, create_admin

USERNAME = "admin"


class Command(BaseCommand):
    """`manage.py ensure_admin`, run at every start; silent once the account exists."""

    help = "Create the superuser `admin` unless it exists, and print its generated password once."

    def handle(self, *args: Any, **options: Any) -> None:
        """Create the account when it is absent."""
        # Asked first only to spare every start the slow hash; the operation decides.
        if User.objects.filter(username=USERNAME, is_superuser=True).exists():
            return
        password = settings.ADMIN_PASSWORD or secrets.token_urlsafe(12)
        try:
            is_created = create_admin(username=USERNAME, password=password)
        except UsernameTaken as error:
            raise CommandError(
                f"The name {USERNAME!r} belongs to an ordinary user. Create an operator with another name: "
                "manage.py createsuperuser"
            ) from error
        if is_created and not settings.ADMIN_PASSWORD:
            self.stdout.write(f"admin password (shown once): {password}")
