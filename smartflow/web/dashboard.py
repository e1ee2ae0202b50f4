"""The admin's first page: the outbox's overview, and what the chat answers now.

Fetched again every few seconds while somebody looks. The numbers come from bounded reads, so that the page answers on
the day when it is needed most.
"""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache

from chat.run_queries import count_runs_in_flight
from outbox.admin.overview import Card, console
from smartflow.kernel.clock import utc_now

REFRESH_SECONDS = 3


def add_overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Put the overview on the admin's first page (UNFOLD["DASHBOARD_CALLBACK"])."""
    return {**context, **_overview(request), "title": _("Overview")}


@never_cache
def overview(request: HttpRequest) -> HttpResponse:
    """Return the overview alone, for the page that refreshes it."""
    if not admin.site.has_permission(request):
        # A redirect would put the login form into the middle of the page.
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    return render(request, "web/overview.html", _overview(request))


def _overview(request: HttpRequest) -> dict[str, Any]:
    return {
        "console": console() if request.user.has_perm("outbox.view_outboxmessage") else None,
        "cards": [_runs_card()] if request.user.has_perm("chat.view_chatrun") else [],
        "looked_at": utc_now(),
        "refresh_seconds": REFRESH_SECONDS,
    }


def _runs_card() -> Card:
    return Card(
        name="runs",
        title=_("Runs in flight"),
        figure=str(count_runs_in_flight()),
        note=_("being answered now"),
        url=f"{reverse('admin:chat_chatrun_changelist')}?state=in_flight",
    )
