"""Signing in, up and out of the page, and the access tokens that its scripts take to the API.

The accounts operations decide, as for the API; the rate limits are the API's own buckets, so neither is a way around
the other.
"""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import rotate_token
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from smartflow.accounts.contracts import AuthenticatedUser, Client
from smartflow.accounts.operations import end_session, lend_access_token, open_session, register_user
from smartflow.accounts.queries import SessionEnded, authenticate_token
from smartflow.api.throttling import check_rate
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import DomainError
from smartflow.web.app.session import (
    COOKIE,
    address_of_request,
    error_answer,
    give_cookie,
    public,
    signed_in,
    take_cookie,
    user_of_cookie,
)


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
@public
def sign_in(request: HttpRequest) -> HttpResponse:
    """Show the form, and open a session for who proves who they are."""
    if request.method != "POST":
        return _to_page(request) if _is_signed_in(request) else _form(request, "app/sign_in.html")
    username, password = request.POST.get("username", ""), request.POST.get("password", "")
    try:
        check_rate(group="auth", address=address_of_request(request), name=username)
        return _begin(request, username, password)
    except DomainError as error:
        return _form(request, "app/sign_in.html", error)


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
@public
def sign_up(request: HttpRequest) -> HttpResponse:
    """Show the form, create the account, and sign in."""
    if request.method != "POST":
        return _to_page(request) if _is_signed_in(request) else _form(request, "app/sign_up.html")
    username, password = request.POST.get("username", ""), request.POST.get("password", "")
    try:
        check_rate(group="auth", address=address_of_request(request))
        register_user(username=username, password=password)
        return _begin(request, username, password)
    except DomainError as error:
        return _form(request, "app/sign_up.html", error)


@require_POST
@signed_in
def sign_out(request: HttpRequest, user: AuthenticatedUser) -> HttpResponse:
    """End the session, everywhere its tokens are."""
    end_session(by=user, session_id=user.session_id, now=utc_now())
    response = HttpResponseRedirect(reverse("app:sign_in"))
    take_cookie(response)
    return response


@require_POST
@signed_in
def lend_token(request: HttpRequest, user: AuthenticatedUser) -> HttpResponse:
    """Give the page's scripts a token for the API; it dies with the session."""
    token = lend_access_token(by=user, now=utc_now())
    seconds = int(settings.ACCESS_TOKEN_LIFETIME.total_seconds())
    return JsonResponse({"access_token": token, "expires_in_seconds": seconds})


def _begin(request: HttpRequest, username: str, password: str) -> HttpResponse:
    client = Client(user_agent=request.headers.get("User-Agent", ""), ip_address=address_of_request(request))
    pair = open_session(username=username, password=password, client=client, now=utc_now())
    user = authenticate_token(header=f"Bearer {pair.access_token}", now=utc_now())
    rotate_token(request)
    response = _to_page(request)
    give_cookie(response, session_id=user.session_id, now=utc_now())
    return response


def _form(request: HttpRequest, template: str, error: DomainError | None = None) -> HttpResponse:
    shown: dict[str, Any] = {"next": _next(request), "username": request.POST.get("username", "")}
    if error is None:
        return render(request, template, shown)
    answer = error_answer(error)
    shown |= {
        "message": answer.content.decode(),
        "fields": {name: gettext(hint) for name, hint in error.fields.items()},
    }
    response = render(request, template, shown, status=answer.status_code)
    if "Retry-After" in answer:
        response["Retry-After"] = answer["Retry-After"]
    return response


def _is_signed_in(request: HttpRequest) -> bool:
    try:
        user_of_cookie(request.COOKIES.get(COOKIE), now=utc_now())
    except SessionEnded:
        return False
    return True


def _to_page(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect(_next(request) or reverse("app:page"))


def _next(request: HttpRequest) -> str:
    """Return where to go on; "" unless it is a page of ours."""
    url = request.POST.get("next") or request.GET.get("next") or ""
    is_ours = url.startswith(reverse("app:page"))
    return url if is_ours and url_has_allowed_host_and_scheme(url, allowed_hosts=None) else ""
