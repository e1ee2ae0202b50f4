"""The page as a browser sees it: forms with their CSRF token, and what stands where."""

import re

from django.test import Client

from smartflow.kernel.ids import new_uuid
from tests.factories import PASSWORD

SCRIPT = {"HX-Request": "true"}


class Browser:
    """A browser that keeps cookies and checks CSRF as a real one meets it."""

    def __init__(self, user=None):
        self.http = Client(enforce_csrf_checks=True, raise_request_exception=False)
        if user is not None:
            assert self.sign_in(user.username).status_code == 302

    def get(self, path, **options):
        return self.http.get(path, **options)

    def csrf_token(self):
        self.get("/app/sign-in")
        return self.http.cookies["csrftoken"].value

    def post(self, path, values=None, *, by_script=True, **headers):
        sent = {"X-CSRFToken": self.csrf_token(), **(SCRIPT if by_script else {}), **headers}
        return self.http.post(path, values or {}, headers=sent)

    def sign_in(self, username, password=PASSWORD, **values):
        return self.post("/app/sign-in", {"username": username, "password": password, **values}, by_script=False)

    def add(self, title, quadrant=2, *, key=None, by_script=True, **values):
        form = {"title": title, "quadrant": quadrant, "key": key or new_uuid(), **values}
        return self.post("/app/tasks/add", form, by_script=by_script)

    def do(self, verb, task_id, values=None, **options):
        return self.post(f"/app/tasks/{task_id}/{verb}", values, **options)

    def undo(self, answer):
        return self.post("/app/tasks/undo", {"undo": answer.context["undo"]})


def rows_of(answer, quadrant):
    """Return the titles that stand in a quadrant, in their order."""
    return [row.title for row in card_of(answer, quadrant).rows]


def card_of(answer, quadrant):
    return next(card for card in answer.context["board"].cards if card.quadrant == quadrant)


def inline_code(html):
    """Return what a strict policy would refuse to run or to show."""
    return re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son\w+=|javascript:|hx-on|hx-vals=.js", html)
