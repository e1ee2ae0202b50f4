"""Failures that Django itself answers (unknown path, refused host, failed CSRF check, a crash outside REST framework).

Paths of the API get the envelope; pages keep Django's own answers. urls.py names these as handler400 … handler500,
settings.py names the CSRF view.
"""

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.views import csrf, defaults

from smartflow.api import codes
from smartflow.api.envelope import failure, to_json

_API_PREFIXES = ("/api/", "/health")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400."""
    return _enveloped(request, codes.WRONG) or defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403."""
    return _enveloped(request, codes.FORBIDDEN) or defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404."""
    return _enveloped(request, codes.NOT_FOUND) or defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500; Django has logged the traceback, the answer holds none of it."""
    return _enveloped(request, codes.UNEXPECTED) or defaults.server_error(request)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a failed CSRF check."""
    return _enveloped(request, codes.FORBIDDEN) or csrf.csrf_failure(request, reason=reason)


def _enveloped(request: HttpRequest, code: str) -> HttpResponse | None:
    if not request.path.startswith(_API_PREFIXES):
        return None
    row = codes.CODES[code]
    fields = {"request": gettext(row.meaning)} if row.http_status == 400 else None
    return HttpResponse(to_json(failure(code, fields=fields)), status=row.http_status, content_type="application/json")
