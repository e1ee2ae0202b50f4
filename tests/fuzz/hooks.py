"""What the fuzzer is told about this API: who asks, with which idempotency key, and whose sessions may end.

Loaded by schemathesis itself, in a process of its own. FUZZ_PEOPLE is a file that names them: one person who asks, and
others, who are there to be signed out. All of them renew their tokens before these expire.
"""

import base64
import json
import os
import random
import time
import uuid
from pathlib import Path

import requests
import schemathesis

KEY = "X-Idempotency-Key"
# A key of the schema may come twice, as a repetition's does; were none replaced, most writes would be repetitions.
KEPT_KEYS = 0.1
KNOWN_CREDENTIALS = 0.3
OWN_SESSIONS = 0.5
# So long before its end a token is replaced: longer than one request may take.
MARGIN_SECONDS = 120
LOGIN = "/api/v1/user/login"
REFRESH = "/api/v1/user/refresh-token"
SESSION = "/api/v1/user/sessions/{session_id}"
ENDS_SESSIONS = ("/api/v1/user/logout", "/api/v1/user/sessions/end-all", SESSION)

_people = json.loads(Path(os.environ["FUZZ_PEOPLE"]).read_text())
_chance = random.Random(int(os.environ["FUZZ_SEED"]))


class Person:
    """Somebody who stays signed in until the session is ended."""

    def __init__(self, token, refresh_token):
        self._token = token
        self._refresh_token = refresh_token

    def token(self, base_url):
        """Return the token, a new one when the old one is near its end and the session was not ended."""
        if time.time() > _claims(self._token)["exp"] - MARGIN_SECONDS:
            answer = requests.post(
                base_url.rstrip("/") + REFRESH, json={"refresh_token": self._refresh_token}, timeout=30
            )
            if answer.ok:
                pair = answer.json()["data"]
                self._token, self._refresh_token = pair["access_token"], pair["refresh_token"]
        return self._token


def _claims(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


_asking = Person(**_people["asking"])
_leaving = [Person(**person) for person in _people["leaving"]]


@schemathesis.auth(refresh_interval=None)
class SignedIn:
    """The token of the one who asks, or of one who may be signed out."""

    def get(self, case, _context):
        person = _asking
        if case.operation.path in ENDS_SESSIONS:
            person = _leaving.pop() if len(_leaving) > 1 else _leaving[0]
        return person.token(case.operation.schema.get_base_url())

    def set(self, case, token, _context):
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Give a write a key of its own, a sign-in what is right, and the end of a session one that there is."""
    if case.meta is not None and not case.meta.generation.mode.is_positive:
        return
    key = (case.headers or {}).get(KEY)
    if key and _chance.random() > KEPT_KEYS:
        case.headers[KEY] = str(uuid.UUID(int=_chance.getrandbits(128)))
    if case.operation.path == LOGIN and _chance.random() < KNOWN_CREDENTIALS:
        case.body = dict(_people["credentials"])
    token = (case.headers or {}).get("Authorization", "").removeprefix("Bearer ")
    if case.operation.path == SESSION and token.count(".") == 2 and _chance.random() < OWN_SESSIONS:
        case.path_parameters["session_id"] = _claims(token)["sid"]
