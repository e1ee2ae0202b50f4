"""Typed readers of environment variables. A wrong value stops the start with a sentence that says how to fix it.

Called by settings.py only. Every name read here stands in .env.example and docs/configuration.md (a test compares).
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

_HOST_AND_PORT = re.compile(r"(?:[^\s:/@]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")
_ALLOWED_HOST = re.compile(r"\*|\.?[A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\]")
_ORIGIN = re.compile(r"https?://([A-Za-z0-9_.*-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?")

_HTTP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


class Environment:
    """Reads variables and remembers their names, so that a test can compare them with the documents."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables
        self.names: set[str] = set()

    def text(self, name: str, default: str = "") -> str:
        """Return the variable without surrounding blanks; unset and empty both give the default."""
        self.names.add(name)
        return self._variables.get(name, "").strip() or default

    def integer(self, name: str, default: int, *, low: int, high: int, example: str) -> int:
        """Return a whole number within [low, high]."""
        raw = self.text(name)
        if not raw:
            return default
        if not re.fullmatch(r"-?\d+", raw) or not low <= int(raw) <= high:
            raise wrong(name, f"{raw!r} is not a whole number from {low} to {high}", example)
        return int(raw)

    def number(self, name: str, default: float, *, low: float, high: float, example: str) -> float:
        """Return a decimal number within [low, high]."""
        raw = self.text(name)
        try:
            value = float(raw or default)
        except ValueError:
            raise wrong(name, f"{raw!r} is not a number", example) from None
        if not low <= value <= high:
            raise wrong(name, f"{raw!r} is not between {low} and {high}", example)
        return value

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """Return one of the choices, or the default when unset."""
        value = self.text(name, default)
        if value != default and value not in choices:
            raise wrong(name, f"{value!r} is none of {', '.join(choices)}", choices[0])
        return value

    def names_list(self, name: str, default: str) -> list[str]:
        """Return a comma-separated list without blanks or repeats."""
        return list(dict.fromkeys(part.strip() for part in self.text(name, default).split(",") if part.strip()))

    def kafka_name(self, name: str, default: str) -> str:
        """Return the beginning of a topic's name, made of the characters that Kafka allows there."""
        value = self.text(name, default)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", value):
            raise wrong(name, f"{value!r} holds more than letters, digits, dots, hyphens and underscores", default)
        return value

    def secret(self, name: str, *, low: int, example: str) -> str:
        """Return a secret of at least `low` characters, or an empty text when unset; the error never shows it."""
        value = self.text(name)
        if value and len(value) < low:
            raise wrong(name, f"it has fewer than {low} characters", example)
        return value

    def api_key(self, name: str, *, example: str) -> str:
        """Return a key that fits into an HTTP header, or an empty text when unset; the error never shows it."""
        value = self.text(name)
        if not re.fullmatch(r"[!-~]*", value):
            raise wrong(name, "it holds blanks or characters outside ASCII, which no HTTP header carries", example)
        return value

    def hosts(self, name: str, default: str, *, example: str) -> list[str]:
        """Return a list of host names without scheme or port; `*` stands for all, `.example.com` for a domain."""
        return self._each(name, default, _ALLOWED_HOST, "is not a host name without scheme and port", example)

    def rate(self, name: str, default: str) -> tuple[int, float]:
        """Return a rate N/S: N at once, and N more in S seconds."""
        raw = self.text(name, default)
        match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,4})", raw)
        if match is None:
            raise wrong(name, f"{raw!r} is not requests/seconds, two whole numbers from 1", default)
        return int(match[1]), float(match[2])

    def switch(self, name: str, default: str) -> bool:
        """Return whether a part is `on` or `off`."""
        return self.choice(name, default, ("on", "off")) == "on"

    def http_names(self, name: str, default: str, *, example: str) -> list[str]:
        """Return a list of names as HTTP writes them: of headers, of methods."""
        return self._each(name, default, _HTTP_NAME, "is not a name of HTTP (letters, digits, hyphens)", example)

    def origins(self, name: str, *, example: str) -> list[str]:
        """Return a list of origins, scheme included."""
        return self._each(name, "", _ORIGIN, "is not an origin (scheme://host, without a path)", example)

    def _each(self, name: str, default: str, pattern: re.Pattern[str], what: str, example: str) -> list[str]:
        values = self.names_list(name, default)
        for value in values:
            if not pattern.fullmatch(value):
                raise wrong(name, f"{value!r} {what}", example)
        return values

    def folder(self, name: str, default: Path) -> Path:
        """Return a folder that can be written, creating it when it is absent."""
        try:
            path = Path(self.text(name, str(default))).expanduser().resolve()
        except RuntimeError:
            raise wrong(name, "nobody has the home folder it begins with", "/srv/smartflow/var") from None
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise wrong(name, f"{path} cannot be created ({error.strerror})", "/srv/smartflow/var") from error
        if not os.access(path, os.W_OK):
            raise wrong(name, f"{path} cannot be written by this user", "/srv/smartflow/var")
        return path

    def url(self, name: str, *, schemes: tuple[str, ...], example: str) -> str:
        """Return a URL with one of the schemes and a host, or an empty text when unset."""
        raw = self.text(name)
        if not raw:
            return ""
        parts = _split(name, raw, example)
        if parts.scheme not in schemes or not (parts.hostname or parts.scheme == "filesystem"):
            raise wrong(name, f"it must start with {' or '.join(s + '://' for s in schemes)} and name a host", example)
        # The client takes any other path for database 0 and says nothing.
        if parts.scheme in {"redis", "rediss"} and not re.fullmatch(r"(/\d*)?", parts.path):
            raise wrong(name, "after the host comes the number of a database", example)
        return raw

    def hosts_with_ports(self, name: str, *, example: str) -> list[str]:
        """Return a list of host:port pairs, empty when unset."""
        servers = self.names_list(name, "")
        for number, server in enumerate(servers, start=1):
            match = _HOST_AND_PORT.fullmatch(server)
            if match is None or not 0 < int(match[1]) < 65536:
                # Not shown: who writes a URL here may have written its password.
                raise wrong(name, f"entry {number} of {len(servers)} is not host:port", example)
        return servers

    def database(self, name: str, default: str) -> dict[str, Any]:
        """Return Django's settings of one database from its URL (sqlite or mysql)."""
        raw = self.text(name, default)
        example = "mysql://smartflow:secret@127.0.0.1:3306/smartflow"
        if raw.split("://", 1)[0] not in {"sqlite", "mysql"}:
            raise wrong(name, "it starts with neither sqlite:// nor mysql:// (the latter for MariaDB too)", example)
        try:
            settings = dict(dj_database_url.parse(raw))
        except ValueError:
            raise wrong(name, "it is not a database URL", example) from None
        if not settings.get("NAME"):
            raise wrong(name, "it names no database", example)
        if raw.startswith("sqlite"):
            _check_sqlite_file(name, str(settings["NAME"]))
        return settings


def _split(name: str, raw: str, example: str) -> Any:
    try:
        parts = urlsplit(raw)
        _ = parts.port
    except ValueError:
        raise wrong(name, "it is not a URL, or its port is no number", example) from None
    return parts


def _check_sqlite_file(name: str, file: str) -> None:
    example = "sqlite:////srv/smartflow/smartflow.sqlite3"
    if file == ":memory:":
        raise wrong(name, "a database in memory is seen by one process only", example)
    if not Path(file).absolute().parent.is_dir():
        raise wrong(name, f"the folder of {file} does not exist", example)


def wrong(name: str, what: str, example: str) -> ImproperlyConfigured:
    """Return the error of a wrong variable: its name, what is wrong, an example. Never a secret's value."""
    return ImproperlyConfigured(f"{name} is wrong: {what}. Example: {name}={example}")


def print_wrong_settings_as_a_sentence() -> None:
    """
    Make a wrong setting end the process with one line instead of a traceback.

    Django's commands, uvicorn and Celery read the settings at different depths; what they have in common is that they
    let the error through to the interpreter.
    """
    sys.excepthook = _print_uncaught


def _print_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, ImproperlyConfigured):
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
    else:
        sys.__excepthook__(kind, error, traceback)
