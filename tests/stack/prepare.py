"""Migrates a stack's database and signs people up in one go, in a process with the stack's environment.

The product's hasher is slow on purpose; a hundred people through the front door would take most of a suite's time.
Prints one line of JSON: [[user id, username, access token, refresh token], ...].
"""

import json
import sys

import django
from django.conf import settings


def main(count: int) -> None:
    """Migrate, then make `count` people, each with a session."""
    django.setup()
    from django.core.management import call_command
    from django.db import transaction

    from tests.factories import make_user, sign_in

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    call_command("migrate", verbosity=0)
    people = []
    with transaction.atomic():
        for number in range(1, count + 1):
            user = make_user(f"person-{number}")
            tokens = sign_in(user)
            people.append([user.pk, user.username, tokens.access_token, tokens.refresh_token])
    sys.stdout.write(json.dumps(people))


if __name__ == "__main__":
    main(int(sys.argv[1]))
