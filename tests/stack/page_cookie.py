"""Signs somebody in to the page without the front door, whose password hash costs a journey a second each time."""

import json
from base64 import urlsafe_b64decode

from django.http import HttpResponse
from django.test import override_settings

from smartflow.kernel.clock import utc_now
from smartflow.web.app.session import COOKIE, give_cookie
from tests.stack.person import Person
from tests.stack.stack import Stack


def page_cookie(stack: Stack, person: Person) -> dict[str, str]:
    """Return the cookie of the person's session, as a browser takes it."""
    payload = person.token.split(".")[1]
    session_id = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"]
    answer = HttpResponse()
    with override_settings(SECRET_KEY=_secret_of(stack)):
        give_cookie(answer, session_id=session_id, now=utc_now())
    return {"name": COOKIE, "value": answer.cookies[COOKIE].value, "url": stack.base_url, "sameSite": "Lax"}


def _secret_of(stack: Stack) -> str:
    given = stack.parts.environment().get("SECRET_KEY")
    return given or json.loads((stack.folder / "data" / "secrets.json").read_text())["SECRET_KEY"]
