"""Sends a recipe's request as a user, and reads the answer so that two of them can be compared."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlencode

from django.test import Client
from rest_framework.test import APIClient

from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import utc_now
from smartflow.web.app.live import LiveLimits, LiveTasks
from smartflow.web.app.session import COOKIE
from tests.factories import PASSWORD, sign_in
from tests.integration.chat.executing import END, SteppedModel
from tests.integration.chat.raw_requests import Answer, Server
from tests.integration.web.pages import SCRIPT
from tests.task_rows import key

# What differs between any two answers.
_OF_THE_MOMENT = {"x-request-id", "date", "expires", "set-cookie"}
_MADE_FOR_EACH_PAGE = re.compile(
    r'name="csrfmiddlewaretoken" value="\w+"|name="csrf-token" content="\w+"|name="key" value="[\w-]+"'
    r'|data-next-change-ms="\d+"|^retry: \d+',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Heard:
    """An answer; the ids that were asked for stand in it as <asked>, so that answers about two objects compare."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: object
    text: str = field(compare=False)

    @property
    def code(self):
        """The envelope's code; "" of what has none."""
        return self.body.get("status", "") if isinstance(self.body, dict) else ""


class Asker:
    """Somebody who asks: a user, by a token or by the page's cookie, or without one nobody that is known."""

    def __init__(self, user=None):
        self._token, self._page = "", Client(raise_request_exception=False)
        if user is not None:
            self._token = sign_in(user).access_token
            self._page.post("/app/sign-in", {"username": user.username, "password": PASSWORD})
            assert COOKIE in self._page.cookies

    def ask(self, operation, recipe, names):
        """Send the request with these ids in its placeholders."""
        method = recipe.method or operation.method.replace("*", "GET")
        paths = {name: names[recipe.path.get(name, name)] for name in operation.parameters}
        path = operation.route.format(**paths)
        query = urlencode(filled(recipe.query, names))
        body = filled(recipe.body, names)
        if LiveTasks.serves(path):
            answer = asyncio.run(_ask_live(method, path, query=query, cookie=self._page.cookies.get(COOKIE)))
            status, headers, raw = answer.status, answer.headers, answer.body
        elif operation.is_raw:
            answer = asyncio.run(_ask_raw(method, path, token=self._token, query=query, body=body))
            status, headers, raw = answer.status, answer.headers, answer.body
        else:
            answer = self._ask_django(method, f"{path}?{query}" if query else path, body)
            status, headers = answer.status_code, dict(answer.items())
            raw = b"".join(answer.streaming_content) if answer.streaming else answer.content
        return _heard(status, headers, raw.decode(), asked_ids(operation, recipe, names))

    def _ask_django(self, method, path, body):
        if path.startswith("/app/"):
            # As the page's script does: a form's fields, and its mark.
            form = urlencode(body or {})
            return self._page.generic(method, path, form, "application/x-www-form-urlencoded", headers=SCRIPT)
        client = APIClient(raise_request_exception=False)
        if self._token:
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {self._token}")
        data = json.dumps(body) if body is not None else ""
        return client.generic(method, path, data, "application/json", headers=key())


def filled(value, names):
    """Return the value with ids in the place of its placeholders; an id keeps its type."""
    if isinstance(value, dict):
        return {name: filled(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, names) for inner in value]
    placeholder = re.fullmatch(r"\{(\w+)\}", value) if isinstance(value, str) else None
    return names[placeholder[1]] if placeholder else value


def placeholders(recipe):
    """Return the names of the belongings that a recipe's query and body aim at."""
    return set(re.findall(r"'\{(\w+)\}'", repr([recipe.query, recipe.body]))) | set(recipe.path.values())


def asked_ids(operation, recipe, names):
    """Return the ids of the other user's that the request carries."""
    asked = placeholders(recipe) | set(operation.parameters)
    return [names[name] for name in asked if name in names and not name.startswith("my_")]


async def _ask_live(method, path, *, query, cookie):
    """Follow the page's stream until it has told something."""
    database, answer = DatabaseThreads(threads=1), Answer()
    limits = LiveLimits(most=9, most_of_user=9, ping_seconds=9, slow_seconds=9)
    live = LiveTasks(database=database, limits=limits, clock=utc_now)
    headers = [(b"cookie", f"{COOKIE}={cookie.value}".encode())] if cookie else []
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}
    following = asyncio.ensure_future(live(scope, None, answer.send))
    try:
        until = monotonic() + 10
        while not following.done() and b"data:" not in answer.body:
            assert monotonic() < until, "the stream tells nothing"
            await asyncio.wait({following}, timeout=0.01)
    finally:
        await live.close()
        await following
        database.close()
    return answer


async def _ask_raw(method, path, *, token, query, body):
    database = DatabaseThreads(threads=1)
    server = Server(database, model=SteppedModel(["Hi", END]))
    try:
        return await server.ask(method, path, token=token, body=body, query=query, content_type="application/json")
    finally:
        await server.close()
        database.close()


def _heard(status, headers, text, asked):
    kept = sorted((name.lower(), value) for name, value in headers.items() if name.lower() not in _OF_THE_MOMENT)
    try:
        body = json.loads(text)
    except ValueError:
        body = _MADE_FOR_EACH_PAGE.sub("", text)
    lengthless = tuple((name, _masked(value, asked)) for name, value in kept if name != "content-length")
    return Heard(status, lengthless, _masked(body, asked), text)


def _masked(value, asked):
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if name != "request_id"}
        return {name: inner if name == "status" else _masked(inner, asked) for name, inner in kept.items()}
    if isinstance(value, list):
        return [_masked(inner, asked) for inner in value]
    if value in asked:
        return "<asked>"
    if isinstance(value, str):
        for identifier in asked:
            # A number stands in a page for many things; for the row in an address alone.
            before = "(?<=[a-z][=/])" if isinstance(identifier, int) else r"(?<![\w-])"
            value = re.sub(rf"{before}{identifier}(?![\w-])", "<asked>", value)
    return value
