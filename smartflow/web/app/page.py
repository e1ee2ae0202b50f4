"""The page itself: the quadrants and the chat beside them."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from smartflow.accounts.contracts import AuthenticatedUser
from smartflow.web.app.session import signed_in


@require_safe
@signed_in
def show_page(request: HttpRequest, user: AuthenticatedUser) -> HttpResponse:
    """Show the whole page."""
    return render(request, "app/page.html", {"person": user})
