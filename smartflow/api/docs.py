"""The documentation pages. They load nothing from another host, and the browser is told to hold them to it."""

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerView

# Redoc shows its maker's logo from the maker's host; offline that would be a broken request on every visit.
_POLICY = "img-src 'self' data:; font-src 'self' data:; style-src 'self' 'unsafe-inline'; connect-src 'self'"


class _OfflinePage:
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer the page with its policy."""
        response: HttpResponseBase = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        response["Content-Security-Policy"] = _POLICY
        return response


class SwaggerPage(_OfflinePage, SpectacularSwaggerView):
    """The page to try requests on."""


class RedocPage(_OfflinePage, SpectacularRedocView):
    """The page to read."""
