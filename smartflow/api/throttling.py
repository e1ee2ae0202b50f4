"""Rate limits: who may ask how often, by group of routes, by user and by address.

`check_rate` is the whole of it; RateThrottle calls it for the routes of REST framework, raw routes call it themselves.
A view says its group in `throttle_group`; without one, reads and writes have theirs. Settings: RATE_LIMIT_….
"""

import hashlib
import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import Counter
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from smartflow.api import codes
from smartflow.api.client_address import address_of, client_network
from smartflow.api.token_buckets import Bucket, Buckets, BucketsUnavailable, LocalBuckets, RedisBuckets, Taken
from smartflow.kernel.errors import Unavailable
from smartflow.kernel.text import noop as _

if TYPE_CHECKING:
    from rest_framework.views import APIView  # imports this module by its setting

REFUSED = Counter("http_rate_limited", "Requests that were refused for coming too fast.", ["group"])
UNCHECKED = Counter("http_rate_unchecked", "Requests that met no limit because Redis was away.", ["outcome"])
for _outcome in ("allow", "refuse"):
    UNCHECKED.labels(_outcome)  # from zero on: Prometheus sees no growth in a series that begins with its first event
_VERDICT = "rate_verdict"


class TooManyRequests(Unavailable):
    """The client asks faster than it may."""

    code = codes.TOO_MANY_REQUESTS
    message = _("Too many requests. Wait a moment.")

    def __init__(self, verdict: "Verdict") -> None:
        super().__init__(retry_after_seconds=verdict.retry_after_seconds)
        self.headers = verdict.headers


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is left in the scarcest bucket of a request."""

    limit: int
    remaining: int
    reset_seconds: int
    retry_after_seconds: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """What the client is told, by the names of draft-ietf-httpapi-ratelimit-headers (up to its version 06)."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }


def check_rate(
    *, group: str, user_id: int | None = None, address: str | None = None, name: str | None = None
) -> Verdict | None:
    """
    Count a request, and refuse it when it comes too fast.

    A signed-in user has a bucket per group; the address has one per group of anonymous routes and one for all that its
    users do together; `name` is what somebody tries to sign in as.

    Shape:  the scarcest bucket for the answer's headers, None when nothing limits.
    Raises: TooManyRequests 40033; Unavailable 50300 when Redis is away and RATE_LIMIT_WITHOUT_REDIS says so.
    """
    buckets = _buckets(group, user_id, client_network(address), name) if settings.RATE_LIMITS else ()
    if not buckets:
        return None
    try:
        taken = _kept_in(settings.REDIS_URL).take(buckets)
    except BucketsUnavailable as error:
        UNCHECKED.labels(settings.RATE_LIMIT_WITHOUT_REDIS).inc()
        if settings.RATE_LIMIT_WITHOUT_REDIS == "refuse":
            raise Unavailable from error
        return None
    verdict = _verdict(buckets, taken)
    if taken.wait_seconds:
        REFUSED.labels(group).inc()
        raise TooManyRequests(verdict)
    return verdict


class RateThrottle(BaseThrottle):
    """Where REST framework asks: after it knows the user, before the body's fields are looked at."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        """Count the request, and leave what the answer tells of it. Raises: as check_rate."""
        group = getattr(view, "throttle_group", None) or ("read" if request.method in SAFE_METHODS else "write")
        field = getattr(view, "throttle_field", "")
        verdict = check_rate(
            group=group,
            user_id=request.user.pk,
            address=address_of(request),
            name=_text(request.data, field) if field else None,
        )
        setattr(request._request, _VERDICT, verdict)
        return True


class RateLimitHeadersMiddleware:
    """Tells every client of a limited route what it has left."""

    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer the request."""
        response = self._get_response(request)
        verdict: Verdict | None = getattr(request, _VERDICT, None)
        if verdict is not None:
            for name, value in verdict.headers.items():
                response[name] = value
        return response


@cache
def _kept_in(redis_url: str) -> Buckets:
    return RedisBuckets(redis_url, prefix=settings.OUTBOX_TOPIC_PREFIX) if redis_url else LocalBuckets()


def _buckets(group: str, user_id: int | None, network: str, name: str | None) -> tuple[Bucket, ...]:
    if user_id is None:
        owners = [(group, f"address:{network}")]
    else:
        owners = [(group, f"user:{user_id}"), ("address", f"address:{network}")]
    if name is not None:
        # Digested: a name may be as long as a body, and a mistyped one may be a password.
        known_as = unicodedata.normalize("NFKC", name).strip()  # as accounts writes it
        owners.append((f"{group}_name", hashlib.sha256(known_as.encode(errors="backslashreplace")).hexdigest()))
    rates = [(*settings.RATE_LIMIT_GROUPS[owned], f"{owned}:{owner}") for owned, owner in owners]
    return tuple(Bucket(key, capacity, period) for capacity, period, key in rates)


def _verdict(buckets: tuple[Bucket, ...], taken: Taken) -> Verdict:
    bucket, level = min(zip(buckets, taken.levels, strict=True), key=lambda pair: pair[1] / pair[0].capacity)
    missing = (bucket.capacity - level) * bucket.period_seconds / bucket.capacity
    return Verdict(
        limit=bucket.capacity,
        remaining=max(0, math.floor(level)),
        reset_seconds=math.ceil(missing),
        retry_after_seconds=math.ceil(taken.wait_seconds),
    )


def _text(values: Any, field: str) -> str | None:
    found = values.get(field) if isinstance(values, Mapping) else None
    return found if isinstance(found, str) else None
