"""The admin's sign-in, as often as the API's: the same buckets, so that neither is a way around the other."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.debug import sensitive_post_parameters

from smartflow.api.client_address import client_address
from smartflow.api.exception_handler import error_response
from smartflow.api.throttling import check_rate
from smartflow.kernel.errors import Unavailable


@sensitive_post_parameters("password")
def sign_in(request: HttpRequest, **options: Any) -> HttpResponseBase:
    """Show the admin's page, and judge what is sent unless it comes too fast."""
    if request.method == "POST":
        meta = request.META
        address = client_address(peer=meta.get("REMOTE_ADDR"), forwarded_for=meta.get("HTTP_X_FORWARDED_FOR"))
        try:
            check_rate(group="auth", address=address, name=request.POST.get("username", ""))
        except Unavailable as error:
            status, body, headers = error_response(error)
            return HttpResponse(body["info"], status=status, headers=headers, content_type="text/plain; charset=utf-8")
    return admin.site.login(request, **options)
