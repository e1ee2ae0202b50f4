"""Sessions that ended long ago leave the table."""

from datetime import timedelta

import pytest

from smartflow.accounts.jobs import KEPT, prune_sessions
from smartflow.accounts.models import TokenSession
from smartflow.kernel.clock import utc_now
from tests.factories import sign_in

pytestmark = pytest.mark.django_db


def test_prune_sessions_deletes_what_expired_long_ago_and_nothing_else(alice):
    for _ in range(3):
        sign_in(alice)
    recent, long_ago, live = TokenSession.objects.order_by("id")
    TokenSession.objects.filter(pk=recent.pk).update(expires_at=utc_now() - KEPT + timedelta(hours=1))
    TokenSession.objects.filter(pk=long_ago.pk).update(expires_at=utc_now() - KEPT - timedelta(hours=1))

    prune_sessions()

    assert set(TokenSession.objects.values_list("id", flat=True)) == {recent.pk, live.pk}
