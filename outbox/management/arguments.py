"""What `manage.py outbox` can be asked, and the rows its filters mean."""

import argparse
import re
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from outbox.selection import Selection

# More than any row's age, and less than what a date can be taken back by.
LONGEST = timedelta(days=36_500)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> timedelta:
    """Return the length of `90s`, `30m`, `2h` or `7d`."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; examples: 90s, 30m, 2h, 7d")
    length = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    if length > LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than {LONGEST.days}d")
    return length


def row_id(text: str) -> int:
    """Return the number of `123` or `#123`."""
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise argparse.ArgumentTypeError(f"{text!r} is no row id")
    return int(digits)


def add_verbs(parser: CommandParser) -> None:
    """Declare the verbs and their options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    status = verbs.add_parser("status", help="Say how deep and how late the outbox is, and who works.")
    status.add_argument("--json", action="store_true", dest="as_json", help="Machine-readable.")
    requeue = verbs.add_parser("requeue", help="Send dead letters round again.")
    _add_filters(requeue)
    requeue.add_argument("--discarded", action="store_true", help="Those given up, instead of the open ones.")
    _add_filters(verbs.add_parser("discard", help="Give dead letters up."))
    for name, text in (("pause", "Hold the events of a type."), ("resume", "Let a paused type go on.")):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("types", nargs="*", metavar="event_type")
        verb.add_argument("--all", action="store_true", dest="is_all", help="Every event type.")
    prune = verbs.add_parser("prune", help="Delete finished rows past retention.")
    prune.add_argument("--discarded", action="store_true", help="Discarded dead letters, instead of consumed rows.")
    prune.add_argument("--older-than", type=duration, metavar="7d", help="Finished before; default: the retention.")
    for name, verb in verbs.choices.items():
        if name != "status":
            _add_care(verb)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--id", type=row_id, action="append", dest="ids", metavar="ID", help="A row; may be repeated.")
    parser.add_argument("--type", default="", dest="event_type", help="Rows of this event type.")
    parser.add_argument("--key", default="", help="Rows of this key.")
    parser.add_argument("--error", default="", help="Rows whose last error begins like this.")
    parser.add_argument("--older-than", type=duration, metavar="2h", help="Rows written longer ago than this.")
    parser.add_argument("--up-to-id", type=row_id, metavar="ID", help="Rows up to this one.")
    parser.add_argument("--all", action="store_true", dest="is_all", help="Every dead letter that waits.")


def _add_care(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="", help="Why: the next operator reads it. Needed to change anything.")
    parser.add_argument("--dry-run", action="store_true", help="Only say what would happen.")
    parser.add_argument("--yes", action="store_true", help="Do not ask.")


def selection_of(*, options: dict[str, Any], now: datetime) -> Selection:
    """Return the rows that the options mean. Raises: CommandError when they name none, or two things at once."""
    age = options["older_than"]
    filters: dict[str, Any] = {
        "event_type": options["event_type"],
        "key": options["key"],
        "error": options["error"],
        "written_before": now - age if age is not None else None,
        "up_to_id": options["up_to_id"],
    }
    given = any(value not in ("", None) for value in filters.values())
    ids, is_all = options["ids"], options["is_all"]
    if sum((bool(ids), given, is_all)) != 1:
        raise CommandError(
            "Say which rows: --id, or filters (--type, --key, --error, --older-than, --up-to-id), or --all."
        )
    if ids:
        return Selection(ids=tuple(sorted(set(ids))))
    return Selection(**filters, is_discarded=options.get("discarded", False))
