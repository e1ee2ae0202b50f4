"""What the page shows: all of it, the quadrants alone, and one task's row as an editor."""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from smartflow.accounts.contracts import AuthenticatedUser
from smartflow.kernel.clock import utc_now
from smartflow.web.app.board import read_board, read_shown, row_of, today_text
from smartflow.web.app.forms import FIELDS, TaskForm
from smartflow.web.app.session import signed_in
from tasks.queries import TaskNotFound, get_task


@require_safe
@signed_in
def show_page(request: HttpRequest, user: AuthenticatedUser) -> HttpResponse:
    """Show the whole page; with `edit` and a task's id, its row as an editor, for browsers without scripts."""
    wanted = request.GET.get("edit", "")
    is_id = wanted.isascii() and wanted.isdigit() and len(wanted) <= 18
    try:
        editor = open_editor(user, int(wanted)) if is_id else {}
    except TaskNotFound:
        editor = {}
    return render_page(request, user, editor=editor, undo=request.GET.get("undo", ""))


@require_safe
@signed_in
def show_quadrants(request: HttpRequest, user: AuthenticatedUser) -> HttpResponse:
    """Show the quadrants alone, for the page that is told of a change."""
    return render(request, "app/quadrants.html", board_context(request, user))


@require_safe
@signed_in
def show_editor(request: HttpRequest, user: AuthenticatedUser, task_id: int) -> HttpResponse:
    """Show one task's row as an editor."""
    return render(request, "app/task_editor.html", {"editor": open_editor(user, task_id)})


def render_page(request: HttpRequest, user: AuthenticatedUser, *, status: int = 200, **more: Any) -> HttpResponse:
    """Return the whole page."""
    zone = ZoneInfo(user.time_zone)
    context = {"person": user, "today": today_text(zone=zone, now=utc_now()), **board_context(request, user), **more}
    return render(request, "app/page.html", context, status=status)


def board_context(request: HttpRequest, user: AuthenticatedUser) -> dict[str, Any]:
    """Return what the quadrants' template needs; how many rows are shown stands in the form or in the address."""
    values: Mapping[str, str] = request.POST if request.method == "POST" else request.GET
    board = read_board(user=user, shown=read_shown(values), now=utc_now())
    return {"board": board, "add_forms": [(card, TaskForm(zone=ZoneInfo(user.time_zone))) for card in board.cards]}


def open_editor(user: AuthenticatedUser, task_id: int, form: TaskForm | None = None) -> dict[str, Any]:
    """Return what the editor's template needs: the task as it is, or what was typed. Raises: TaskNotFound."""
    now = utc_now()
    row = row_of(get_task(user_id=user.user_id, task_id=task_id, now=now), zone=ZoneInfo(user.time_zone), now=now)
    typed = form.typed if form else dict(zip(FIELDS, (row.title, row.deadline_input, str(row.sections)), strict=True))
    return {"row": row, "typed": typed, "errors": form.errors if form else {}}
