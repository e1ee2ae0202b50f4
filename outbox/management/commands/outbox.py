"""`manage.py outbox`: what operators do on the admin's pages, for a terminal and for scripts.

Uses the same operations and leaves the same records; whoever is signed in to the system is the operator. Ends with a
code other than 0 when it could not do what it was asked.
"""

import getpass
import json
import time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, transaction

from outbox import dead_letters, pauses, upkeep
from outbox.database_clock import database_now
from outbox.database_errors import is_away
from outbox.management.arguments import add_verbs, selection_of
from outbox.management.status import as_json, as_lines
from outbox.models import OperatorAction, PausedType, Status
from outbox.operator_actions import Asked, record_done, request_stop, work_on
from outbox.queries import overview
from outbox.selection import Preview, freeze, order_risk, preview_dead_letters
from smartflow.events import EVENT_TYPES
from smartflow.kernel.errors import DomainError
from smartflow.kernel.redact import describe_error

INTERRUPTED = 130
SHORTEST_RETENTION = timedelta(hours=1)
MOVES = {"requeue": dead_letters.requeue, "discard": dead_letters.discard}
DONE = {"requeue": "requeued", "discard": "discarded", "pause": "paused", "resume": "resumed"}


class Command(BaseCommand):
    """Look after the outbox."""

    help = "Look after the outbox: status, requeue, discard, pause, resume, prune."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the verbs."""
        add_verbs(parser)

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        """Run one verb; an anticipated failure is told in its own words."""
        self._told_at = 0.0
        if verb != "status":
            _check_reason(verb, options)
        step = {"status": self._status, "requeue": self._move, "discard": self._move, "prune": self._prune}
        try:
            step.get(verb, self._pause_or_resume)(verb, options)
        except DomainError as error:
            raise CommandError(f"{error.message} {error.detail}".strip()) from error
        except (DatabaseError, InterfaceError) as error:
            if not is_away(error):
                raise
            raise CommandError(f"The database does not answer: {describe_error(error, max_bytes=200)}") from error

    def _status(self, verb: str, options: dict[str, Any]) -> None:
        look = overview(now=database_now())
        if options["as_json"]:
            self.stdout.write(json.dumps(as_json(look), indent=2, default=str))
        else:
            self.stdout.write("\n".join(as_lines(look)))

    # --- requeue, discard

    def _move(self, verb: str, options: dict[str, Any]) -> None:
        now = database_now()
        selection = freeze(selection=selection_of(options=options, now=now), now=now)
        preview = preview_dead_letters(selection=selection)
        self._tell_preview(verb, preview)
        if selection.ids is not None and preview.is_empty:
            raise CommandError("None of these rows is a dead letter.")
        if options["dry_run"] or preview.is_empty:
            return
        what = f"{preview.count} dead letters" if preview.ids else "those of the others that fit"
        self._confirm(options, f"{verb.capitalize()} {what}?")
        action = MOVES[verb](selection=selection, by=_operator(), reason=options["reason"], now=now)
        action = self._wait_for(action)
        if action.state == OperatorAction.State.STOPPED:
            raise CommandError(
                f"Stopped by {action.stopped_by}: {action.done_count:,} dead letters were {DONE[verb]} and stay so.",
                returncode=INTERRUPTED,
            )
        self.stdout.write(f"{action.done_count:,} dead letters were {DONE[verb]} (action #{action.pk}).")
        if selection.ids is not None and action.done_count < len(selection.ids):
            raise CommandError(
                f"{len(selection.ids) - action.done_count:,} of the named rows could not be {DONE[verb]}."
            )

    def _tell_preview(self, verb: str, preview: Preview) -> None:
        if preview.ids or preview.is_complete:
            self.stdout.write(f"{preview.count} dead letters fit.")
        else:
            self.stdout.write(f"None of the first {preview.looked_at:,} dead letters fits; the others may.")
        risk = order_risk(preview=preview)
        among = f" of the first {len(preview.ids)}" if risk.is_sample else ""
        if verb == "requeue" and risk.overtaken:
            self.stderr.write(
                f"Order: behind {risk.overtaken}{among} a later event of the same key was already handled; "
                "requeued, they arrive after it."
            )
        if verb == "discard" and risk.waited_for:
            self.stderr.write(
                f"Order: behind {risk.waited_for}{among} later events of the same key wait; they go on without them."
            )

    def _wait_for(self, action: OperatorAction) -> OperatorAction:
        """Do the background's work here, unless a worker has taken it; then watch."""
        is_open = (OperatorAction.State.WAITING, OperatorAction.State.RUNNING)
        try:
            while action.state in is_open:
                action = work_on(action_id=action.pk, clock=database_now, seconds=1.0)
                self._tell(f"{action.done_count:,} of {action.expected_count:,}")
                if action.lease_until is not None:
                    time.sleep(0.5)
        except KeyboardInterrupt:
            request_stop(action_id=action.pk, by=_operator())
            action = work_on(action_id=action.pk, clock=database_now, seconds=1.0)
            if action.state in is_open:
                raise CommandError(f"Action #{action.pk} ends after this batch.", returncode=INTERRUPTED) from None
        return action

    # --- pause, resume

    def _pause_or_resume(self, verb: str, options: dict[str, Any]) -> None:
        paused = set(PausedType.objects.values_list("event_type", flat=True))
        every = sorted(EVENT_TYPES - paused if verb == "pause" else paused)
        if bool(options["types"]) == options["is_all"]:
            raise CommandError(f"Name event types, or --all. These can be {DONE[verb]}: {', '.join(every) or 'none'}")
        types = every if options["is_all"] else list(dict.fromkeys(options["types"]))
        for event_type in types:
            pauses.check_type(event_type=event_type, is_to_pause=verb == "pause", paused=paused)
        self.stdout.write(f"To be {DONE[verb]}: {', '.join(types) or 'nothing'}")
        if options["dry_run"] or not types:
            return
        if verb == "pause":
            self.stderr.write("Later events of the same keys wait too, of whatever type they are.")
        self._confirm(options, f"{verb.capitalize()} {', '.join(types)}?")
        change = pauses.pause_type if verb == "pause" else pauses.resume_type
        with transaction.atomic():
            for event_type in types:
                change(event_type=event_type, by=_operator(), reason=options["reason"], now=database_now())
        self.stdout.write(f"{DONE[verb].capitalize()}: {', '.join(types)}")

    # --- prune

    def _prune(self, verb: str, options: dict[str, Any]) -> None:
        kept = options["older_than"] or timedelta(seconds=settings.OUTBOX_RETENTION_SECONDS)
        if kept < SHORTEST_RETENTION:
            raise CommandError(
                "Rows are kept for an hour at least: an event that is delivered again is known by its row."
            )
        older_than = database_now() - kept
        status = Status.DEAD if options["discarded"] else Status.CONSUMED
        count = upkeep.count_prunable(older_than=older_than, status=status)
        self.stdout.write(f"{count} {'discarded dead letters' if options['discarded'] else 'consumed rows'} can go.")
        if options["dry_run"] or not count.value:
            return
        self._confirm(options, "Delete them for good?")
        asked = Asked(
            verb=OperatorAction.Verb.PRUNE, by=_operator(), reason=options["reason"].strip() or "past retention"
        )
        sums = [0]

        def tell(deleted: int) -> None:
            sums.append(deleted)
            self._tell(f"{deleted:,} deleted")

        try:
            upkeep.prune(older_than=older_than, seconds=float("inf"), status=status, tell=tell)
        except KeyboardInterrupt:
            raise CommandError(f"Stopped: {sums[-1]:,} rows were deleted.", returncode=INTERRUPTED) from None
        finally:
            selection = {"status": status, "older_than": older_than.isoformat()}
            record_done(asked=asked, now=database_now(), count=sums[-1], expected=count.value, selection=selection)
        self.stdout.write(f"{sums[-1]:,} rows were deleted.")

    # --- speaking with whoever typed it

    def _tell(self, progress: str) -> None:
        """Say how far it is, once a second at most."""
        if time.monotonic() - self._told_at >= 1:
            self._told_at = time.monotonic()
            self.stdout.write(progress)

    def _confirm(self, options: dict[str, Any], question: str) -> None:
        if options["yes"]:
            return
        try:
            answer = input(f"{question} [y/N] ")
        except EOFError:
            raise CommandError("Nobody is there to ask: confirm with --yes.") from None
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.")


def _check_reason(verb: str, options: dict[str, Any]) -> None:
    if not options["dry_run"] and not options["reason"].strip() and (verb != "prune" or options["discarded"]):
        raise CommandError('Say why: --reason "…" is what the next operator reads.')


def _operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "command"
