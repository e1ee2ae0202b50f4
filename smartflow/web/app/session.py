"""The page's session: a cookie with the signed id of a row of the token sessions; the database decides if it lives.

`signed_in` and `public` wrap every view of the page: who asks, how often, in which time zone, and the page's policy.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core import signing
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers, patch_vary_headers

from smartflow.accounts.contracts import AuthenticatedUser
from smartflow.accounts.operations import prolong_session
from smartflow.accounts.queries import SessionEnded, authenticate_session
from smartflow.api.client_address import client_address
from smartflow.api.exception_handler import error_response, log_failure
from smartflow.api.throttling import check_rate
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import DomainError

COOKIE = "smartflow_session"
# Everything comes from this host, and nothing that stands in the page's text is ever run.
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
_SALT = "smartflow.web.app.session"
# A session in use is prolonged this often. More often: a write for requests that only read.
_PROLONG_AFTER = timedelta(hours=1)

# Said to people as the API says it; anything else is Django's page of a crash.
_ANSWERED = (DomainError, OperationalError, InterfaceError)

_P = ParamSpec("_P")
PageView = Callable[Concatenate[HttpRequest, AuthenticatedUser, _P], HttpResponse]
PublicView = Callable[Concatenate[HttpRequest, _P], HttpResponse]


def user_of_cookie(value: str | None, *, now: datetime) -> AuthenticatedUser:
    """
    Return whose session the cookie holds.

    Transaction: none; one query. Raises: SessionEnded, also for a cookie that is absent or not ours.
    """
    session_id, _given_at = _read_cookie(value)
    return authenticate_session(session_id=session_id, now=now)


def give_cookie(response: HttpResponse, *, session_id: str, now: datetime) -> None:
    """Let the browser keep the session. Scripts cannot read it, and other sites' forms do not bring it."""
    response.set_cookie(
        COOKIE,
        signing.dumps([session_id, int(now.timestamp())], salt=_SALT),
        max_age=settings.REFRESH_TOKEN_LIFETIME,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def take_cookie(response: HttpResponse) -> None:
    """Let the browser forget the session."""
    response.delete_cookie(COOKIE, samesite="Lax")


def public(view: PublicView[_P]) -> PublicView[_P]:
    """Wrap a view that needs nobody signed in."""

    @wraps(view)
    def answer(request: HttpRequest, /, *args: _P.args, **kwargs: _P.kwargs) -> HttpResponse:
        try:
            response = view(request, *args, **kwargs)
        except _ANSWERED as error:
            response = _show_error(request, error)
        return _with_policy(response)

    return answer


def signed_in(view: PageView[_P]) -> PublicView[_P]:
    """Wrap a view that is given who asks. Counts each request in the API's group of reads or of writes."""

    @wraps(view)
    def answer(request: HttpRequest, /, *args: _P.args, **kwargs: _P.kwargs) -> HttpResponse:
        now = utc_now()
        try:
            user = user_of_cookie(request.COOKIES.get(COOKIE), now=now)
            group = "read" if request.method in {"GET", "HEAD"} else "write"
            check_rate(group=group, user_id=user.user_id, address=address_of_request(request))
            with timezone.override(ZoneInfo(user.time_zone)):
                response = view(request, user, *args, **kwargs)
        except SessionEnded:
            return _with_policy(_to_sign_in(request))
        except _ANSWERED as error:
            return _with_policy(_show_error(request, error))
        _prolong(request, response, now)
        return _with_policy(response)

    return answer


def error_answer(error: Exception) -> HttpResponse:
    """Return what went wrong as a sentence, for the page to show beside what was asked."""
    status, body, headers = error_response(error)
    log_failure(error, status)
    headers.pop("WWW-Authenticate", None)
    return HttpResponse(body["info"], status=status, headers=headers, content_type="text/plain; charset=utf-8")


def address_of_request(request: HttpRequest) -> str | None:
    """Return the client's address."""
    meta = request.META
    return client_address(peer=meta.get("REMOTE_ADDR"), forwarded_for=meta.get("HTTP_X_FORWARDED_FOR"))


def is_htmx(request: HttpRequest) -> bool:
    """Tell whether the page's script asks, for a part of the page; otherwise a browser asks for a whole one."""
    return "HX-Request" in request.headers


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    if is_htmx(request) or request.headers.get("Accept", "").startswith("application/json"):
        return HttpResponse(status=401)  # the page's script goes there, once for all its requests
    url = reverse("app:sign_in")
    return HttpResponseRedirect(url if request.method == "POST" else f"{url}?{urlencode({'next': request.path})}")


def _read_cookie(value: str | None) -> tuple[str, int]:
    try:
        session_id, given_at = signing.loads(value or "", salt=_SALT)
    except signing.BadSignature:
        raise SessionEnded from None
    return session_id, given_at


def _show_error(request: HttpRequest, error: Exception) -> HttpResponse:
    """Return the sentence, for who asked for a whole page on one."""
    answer = error_answer(error)
    if is_htmx(request) or "text/html" not in request.headers.get("Accept", ""):
        return answer
    page = render(request, "app/trouble.html", {"message": answer.content.decode()}, status=answer.status_code)
    if "Retry-After" in answer:
        page["Retry-After"] = answer["Retry-After"]
    return page


def _prolong(request: HttpRequest, response: HttpResponse, now: datetime) -> None:
    session_id, given_at = _read_cookie(request.COOKIES.get(COOKIE))
    is_due = now.timestamp() - given_at > _PROLONG_AFTER.total_seconds()
    is_kept = COOKIE not in response.cookies  # signing out takes it away
    if is_due and is_kept and prolong_session(session_id=session_id, now=now):
        give_cookie(response, session_id=session_id, now=now)


def _with_policy(response: HttpResponse) -> HttpResponse:
    response["Content-Security-Policy"] = POLICY
    response["Referrer-Policy"] = "same-origin"
    add_never_cache_headers(response)
    patch_vary_headers(response, ("Cookie", "Accept-Language", "HX-Request"))
    return response
