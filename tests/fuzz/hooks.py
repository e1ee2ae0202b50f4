"""What the fuzzer is told about this API: who asks, with which idempotency key, and whose sessions may end.

Loaded by schemathesis itself, in a process of its own. FUZZ_PEOPLE is a file that names them: one person who asks and
may sign in again, and the tokens of others, who are there to be signed out.
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
# An access token lives for 15 minutes.
TOKEN_SECONDS = 600
LOGIN = "/api/v1/user/login"
SESSION = "/api/v1/user/sessions/{session_id}"
ENDS_SESSIONS = ("/api/v1/user/logout", "/api/v1/user/sessions/end-all", SESSION)

_people = json.loads(Path(os.environ["FUZZ_PEOPLE"]).read_text())
_chance = random.Random(int(os.environ["FUZZ_SEED"]))
_credentials = {"username": _people["username"], "password": _people["password"]}
_leaving = _people["leaving"]
_asking = {"token": _people["token"], "until": time.monotonic() + TOKEN_SECONDS}


@schemathesis.auth(refresh_interval=None)
class SignedIn:
    """The token of the one who asks, or of one who may be signed out."""

    def get(self, case, _context):
        if case.operation.path in ENDS_SESSIONS:
            return _leaving.pop() if len(_leaving) > 1 else _leaving[0]
        if time.monotonic() > _asking["until"]:
            _asking["token"] = _sign_in(case.operation.schema.get_base_url())
            _asking["until"] = time.monotonic() + TOKEN_SECONDS
        return _asking["token"]

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
        case.body = dict(_credentials)
    token = (case.headers or {}).get("Authorization", "").removeprefix("Bearer ")
    if case.operation.path == SESSION and token.count(".") == 2 and _chance.random() < OWN_SESSIONS:
        case.path_parameters["session_id"] = _session_of(token)


def _sign_in(base_url):
    answer = requests.post(base_url.rstrip("/") + LOGIN, json=_credentials, timeout=30)
    return answer.json()["data"]["access_token"]


def _session_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"]
