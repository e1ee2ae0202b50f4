"""The page's routes, below /app/. Its live stream stands beside Django: see live.py and smartflow/streams.py."""

from django.urls import path, register_converter
from django.urls.converters import IntConverter
from django.views.i18n import set_language

from smartflow.web.app import page, sign_in, task_writes


class RowIdConverter(IntConverter):
    """The id of a row: no number that a database could not hold."""

    regex = "[0-9]{1,18}"


register_converter(RowIdConverter, "row_id")
app_name = "app"
urlpatterns = [
    path("", page.show_page, name="page"),
    path("quadrants", page.show_quadrants, name="quadrants"),
    path("tasks/add", task_writes.add, name="add"),
    path("tasks/undo", task_writes.undo, name="undo"),
    path("tasks/<row_id:task_id>/editor", page.show_editor, name="editor"),
    path("tasks/<row_id:task_id>/edit", task_writes.edit, name="edit"),
    path("tasks/<row_id:task_id>/move", task_writes.move, name="move"),
    path("tasks/<row_id:task_id>/complete", task_writes.complete, name="complete"),
    path("tasks/<row_id:task_id>/reopen", task_writes.reopen, name="reopen"),
    path("tasks/<row_id:task_id>/delete", task_writes.delete, name="delete"),
    path("sign-in", sign_in.sign_in, name="sign_in"),
    path("sign-up", sign_in.sign_up, name="sign_up"),
    path("sign-out", sign_in.sign_out, name="sign_out"),
    path("token", sign_in.lend_token, name="token"),
    path("language", set_language, name="language"),
]
