"""What people do to tasks on the page: one operation each, then the quadrants as they are, with a way back.

A script gets the quadrants and the toast; a browser without scripts is sent back to the page. What is asked for twice
(a double click, a retry after a lost answer) happens once: adding by its form's key, the rest by what it says.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_POST

from smartflow.accounts.contracts import AuthenticatedUser
from smartflow.api.idempotency_records import (
    RETRY_AFTER_SECONDS,
    ClaimLost,
    StillInProgress,
    StoredAnswer,
    claim_key,
    release_claim,
    store_answer,
)
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from smartflow.web.app.board import Card, input_text
from smartflow.web.app.forms import TaskForm
from smartflow.web.app.page import board_context, open_editor, render_page
from smartflow.web.app.session import is_htmx, signed_in
from smartflow.web.app.undo import Undo, read_undo, take_back, undo_of_change
from tasks.contracts import NewTask, Quadrant, TaskChange, TaskRow
from tasks.defaults import default_threshold
from tasks.operations import (
    PriorityInvalid,
    TaskAlreadyDeleted,
    TaskNotCompleted,
    complete_task,
    create_task,
    delete_task,
    undo_complete_task,
    update_task,
)
from tasks.queries import get_task


@require_POST
@signed_in
def add(request: HttpRequest, user: AuthenticatedUser) -> HttpResponse:
    """Add a task to a quadrant."""
    quadrant = _read_quadrant(request)
    form = TaskForm(request.POST.dict(), zone=ZoneInfo(user.time_zone))
    if not form.is_valid:
        return _show_add_form(request, user, quadrant, form)
    added_title = _add_once(user, form.key, NewTask(priority=quadrant, **form.values), utc_now())
    if added_title != form.values["title"]:
        # The key's first request arrived after all, and the text was changed since.
        form.key = new_uuid()
        form.errors["title"] = gettext("“%(title)s” was added before. Press Enter to add this one too.") % {
            "title": added_title
        }
        return _show_add_form(request, user, quadrant, form)
    response = _show(request, user, gettext("Added “%(title)s”.") % {"title": added_title})
    response["HX-Trigger"] = json.dumps({"task-added": {"quadrant": quadrant, "key": new_uuid()}})
    return response


@require_POST
@signed_in
def complete(request: HttpRequest, user: AuthenticatedUser, task_id: int) -> HttpResponse:
    """Tick a task off."""
    complete_task(user_id=user.user_id, task_id=task_id, now=utc_now())
    return _show(request, user, gettext("Completed. Well done!"), Undo(kind="complete", task_id=task_id, before={}))


@require_POST
@signed_in
def reopen(request: HttpRequest, user: AuthenticatedUser, task_id: int) -> HttpResponse:
    """Take a tick away."""
    with suppress(TaskNotCompleted):
        undo_complete_task(user_id=user.user_id, task_id=task_id, now=utc_now())
    return _show(request, user, gettext("Opened again."), Undo(kind="reopen", task_id=task_id, before={}))


@require_POST
@signed_in
def delete(request: HttpRequest, user: AuthenticatedUser, task_id: int) -> HttpResponse:
    """Delete a task."""
    title = get_task(user_id=user.user_id, task_id=task_id, now=utc_now()).row.title
    with suppress(TaskAlreadyDeleted):
        delete_task(user_id=user.user_id, task_id=task_id, now=utc_now())
    message = gettext("Deleted “%(title)s”.") % {"title": title}
    return _show(request, user, message, Undo(kind="delete", task_id=task_id, before={}))


@require_POST
@signed_in
def move(request: HttpRequest, user: AuthenticatedUser, task_id: int) -> HttpResponse:
    """Put a task into another quadrant, and nothing else."""
    quadrant = _read_quadrant(request)
    undo = _change(user, task_id, lambda _row: TaskChange(priority=quadrant))
    return _show(request, user, gettext("Moved.") if undo else "", undo)


@require_POST
@signed_in
def edit(request: HttpRequest, user: AuthenticatedUser, task_id: int) -> HttpResponse:
    """Change what a task says."""
    zone = ZoneInfo(user.time_zone)
    form = TaskForm(request.POST.dict(), zone=zone)
    if not form.is_valid:
        editor = open_editor(user, task_id, form)
        if not is_htmx(request):
            return render_page(request, user, status=422, editor=editor)
        headers = {"HX-Retarget": f"#task-{task_id}", "HX-Reswap": "outerHTML"}
        return _with_headers(render(request, "app/task_editor.html", {"editor": editor}, status=422), headers)
    undo = _change(user, task_id, lambda row: _edited(form, row, zone))
    return _show(request, user, gettext("Saved.") if undo else "", undo)


@require_POST
@signed_in
def undo(request: HttpRequest, user: AuthenticatedUser) -> HttpResponse:
    """Take back what the page's toast offers."""
    take_back(read_undo(request.POST.get("undo", ""), user_id=user.user_id), user_id=user.user_id, now=utc_now())
    return _show(request, user, gettext("Undone."))


def _add_once(user: AuthenticatedUser, key: str, task: NewTask, now: datetime) -> str:
    """
    Add the task unless this key has added one; return the title of the one that it added.

    Transaction: the claim's own, then one for the task with the proof that it was added. Raises: StillInProgress 40038.
    """
    claim = claim_key(user_id=user.user_id, key=f"page:{key}", fingerprint="page-add", now=now)
    if isinstance(claim, StoredAnswer):
        return claim.body
    try:
        with transaction.atomic():
            added = create_task(user_id=user.user_id, task=task, now=now)
            store_answer(claim=claim, status=200, body=added.row.title)
    except ClaimLost:
        raise StillInProgress(retry_after_seconds=RETRY_AFTER_SECONDS) from None
    except BaseException:
        with suppress(DatabaseError):
            release_claim(claim=claim, now=now)
        raise
    return added.row.title


def _change(user: AuthenticatedUser, task_id: int, change_for: Callable[[TaskRow], TaskChange]) -> Undo | None:
    """Change a task; return what takes that back, None when nothing differs."""
    now = utc_now()
    before = get_task(user_id=user.user_id, task_id=task_id, now=now).row
    change = change_for(before)
    if not change.values():
        return None
    after = update_task(user_id=user.user_id, task_id=task_id, change=change, now=now).row
    return undo_of_change(before=before, after=after)


def _edited(form: TaskForm, row: TaskRow, zone: ZoneInfo) -> TaskChange:
    """Return what the editor changes. A threshold that followed from the deadline follows the new one."""
    values: dict[str, Any] = {"title": form.values["title"]}
    if form.values["estimated_sections"] is not None:
        values["estimated_sections"] = form.values["estimated_sections"]
    shown = input_text(row.deadline_at.astimezone(zone) if row.deadline_at else None)
    # The field shows no fractions of a second: what was not touched stays as it is.
    if form.typed["deadline_at"] != shown:
        values["deadline_at"] = form.values["deadline_at"]
        if row.urgency_threshold_at == default_threshold(priority=row.priority, deadline_at=row.deadline_at):
            values["urgency_threshold_at"] = default_threshold(priority=row.priority, deadline_at=values["deadline_at"])
    return TaskChange(**values)


def _read_quadrant(request: HttpRequest) -> int:
    text = request.POST.get("quadrant", "")
    if text not in {str(int(quadrant)) for quadrant in Quadrant}:
        raise PriorityInvalid
    return int(text)


def _show_add_form(request: HttpRequest, user: AuthenticatedUser, quadrant: int, form: TaskForm) -> HttpResponse:
    if is_htmx(request):
        headers = {"HX-Retarget": f"#add-{quadrant}", "HX-Reswap": "outerHTML"}
        context = {"quadrant": quadrant, "form": form}
        return _with_headers(render(request, "app/task_add.html", context, status=422), headers)
    forms: list[tuple[Card, TaskForm]] = board_context(request, user)["add_forms"]
    mended = [(card, form if card.quadrant == quadrant else empty) for card, empty in forms]
    return render_page(request, user, status=422, add_forms=mended)


def _show(request: HttpRequest, user: AuthenticatedUser, message: str, undo: Undo | None = None) -> HttpResponse:
    """Answer a change: the quadrants and a toast, or the way to the page."""
    token = undo.sign(user_id=user.user_id) if undo else ""
    if not is_htmx(request):
        query = f"?{urlencode({'undo': token})}" if token else ""
        return HttpResponseRedirect(f"{reverse('app:page')}{query}")
    context = {**board_context(request, user), "toast": message, "undo": token, "undo_task": undo and undo.task_id}
    return render(request, "app/quadrants_and_toast.html", context)


def _with_headers(response: HttpResponse, headers: dict[str, str]) -> HttpResponse:
    for name, value in headers.items():
        response[name] = value
    return response
