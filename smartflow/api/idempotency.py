"""Makes a write safe to repeat: the same key gets the same answer, and the effect happens once.

A view names its methods in `idempotent_methods`; its handlers know nothing of it. See docs/adr/0014.
"""

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from django.db import DatabaseError, transaction
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from smartflow.api.envelope import EnvelopeJSONRenderer
from smartflow.api.idempotency_records import (
    RETRY_AFTER_SECONDS,
    Claim,
    ClaimLost,
    StillInProgress,
    StoredAnswer,
    claim_key,
    release_claim,
    store_answer,
)
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import Invalid
from smartflow.kernel.text import noop as _

HEADER = "X-Idempotency-Key"
REPLAYED_HEADER = "X-Idempotency-Replayed"
_KEY = re.compile(r"[!-~]{1,128}")

Handler = Callable[..., Response]


class KeyMissing(Invalid):
    """A write that needs a key has none."""

    code = "40037"
    message = _("The X-Idempotency-Key header is missing.")


class KeyInvalid(Invalid):
    """The key is too long or holds other characters."""

    message = _("Send 1 to 128 visible ASCII characters without blanks, such as a UUID.")


class _NotKept(Exception):
    """Rolls back what led to an answer that a repetition must not get."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class IdempotentView(APIView):
    """
    A view whose `idempotent_methods` need a key.

    The handler runs inside the transaction that keeps its answer, so its own transactions are savepoints, and what it
    does on commit happens after the answer is kept. An answer of 429 or 5xx is not kept and its effect is rolled back.
    Answers are kept for a day: not for routes that answer with secrets, and not for people who are not signed in.
    """

    idempotent_methods: ClassVar[tuple[str, ...]] = ("post",)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check who asks, and put the key between the request and its handler."""
        super().initial(request, *args, **kwargs)
        name = (request.method or "").lower()
        handler = getattr(self, name, None)
        if name in self.idempotent_methods and handler is not None:
            # Views are made anew for each request: this one's handler is replaced.
            setattr(self, name, partial(self._answer_once, handler))

    def _answer_once(self, handler: Handler, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        claim_it = partial(
            claim_key, user_id=int(request.user.pk or 0), key=_read_key(request), fingerprint=_fingerprint(request)
        )
        claim = claim_it(now=utc_now())
        if isinstance(claim, StoredAnswer):
            return _replay(claim)
        try:
            return self._work(claim, partial(handler, request, *args, **kwargs))
        except ClaimLost:
            # Slower than its lease: rolled back; the successor's answer is this one's too.
            answer = claim_it(now=utc_now())
            if isinstance(answer, StoredAnswer):
                return _replay(answer)
            release_claim(claim=answer, now=utc_now())
            raise StillInProgress(retry_after_seconds=RETRY_AFTER_SECONDS) from None

    def _work(self, claim: Claim, handler: Callable[[], Response]) -> HttpResponseBase:
        """Return the answer, kept with its effect. Raises: ClaimLost."""
        try:
            with transaction.atomic():
                response = handler()
                if not _is_kept(response):
                    raise _NotKept(response)
                return _keep(claim, response)
        except ClaimLost:
            raise
        except _NotKept as refused:
            response = refused.response
        except Exception as error:
            response = self.handle_exception(error)
            if _is_kept(response):
                return _keep(claim, response)
        # Nothing happened, or a COMMIT was cut off and the record says what became of it.
        with suppress(DatabaseError):
            release_claim(claim=claim, now=utc_now())
        return response


def check_key(key: str) -> str:
    """Return the key. Raises: KeyInvalid."""
    if not _KEY.fullmatch(key):
        raise KeyInvalid(fields={HEADER: KeyInvalid.message})
    return key


def _read_key(request: Request) -> str:
    key = request.headers.get(HEADER, "")
    if not key:
        raise KeyMissing(fields={HEADER: KeyInvalid.message})
    return check_key(key)


def _fingerprint(request: Request) -> str:
    """Return what tells this request from others; the body as the handler sees it, however it was spaced."""
    asked = [request.method, request.get_full_path(), request.data]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _is_kept(response: Response) -> bool:
    return response.status_code < 500 and response.status_code != 429


def _keep(claim: Claim, response: Response) -> HttpResponse:
    body = EnvelopeJSONRenderer().render(response.data, renderer_context={"response": response})
    store_answer(claim=claim, status=response.status_code, body=body.decode())
    headers = {name: value for name, value in response.items() if name != "Content-Type"}
    return _to_http(response.status_code, body, headers)


def _replay(answer: StoredAnswer) -> HttpResponse:
    return _to_http(answer.status, answer.body.encode(), {REPLAYED_HEADER: "true"})


def _to_http(status: int, body: bytes, headers: dict[str, str]) -> HttpResponse:
    return HttpResponse(body, status=status, content_type="application/json", headers=headers)
