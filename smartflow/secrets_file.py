"""Secrets of an embedded installation: created once, kept in the data folder, readable by the owner only.

Called by settings.py. With a shared database every process must get the same secrets, so there they come from the
environment and this file is never used.
"""

import json
import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

NAMES = ("SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")
MIN_LENGTH = 32


def load_or_create(path: Path) -> dict[str, str]:
    """
    Return the secrets of `path`, writing new ones when the file is absent.

    Twice: safe; of two processes that start together one creates the file and both read it.
    Raises: ImproperlyConfigured when the file cannot be used, because new secrets would end every session.
    """
    try:
        if not path.exists():
            _create(path)
        values: dict[str, str] = json.loads(path.read_text())
        return {name: values[name] for name in NAMES}
    except OSError as error:
        raise ImproperlyConfigured(f"{path} cannot be read or written ({error.strerror}) by this user.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImproperlyConfigured(
            f"{path} is damaged. Restore it, or delete it to create new secrets (this ends every session)."
        ) from error


def _create(path: Path) -> None:
    values = {name: secrets.token_urlsafe(48) for name in NAMES}
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        # link, not rename: it fails when another process was first, and then its secrets count
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
