"""An operator locks a user out while the user's devices rotate their tokens and sign in."""

import pytest

from smartflow.accounts.contracts import TokenPair
from smartflow.accounts.models import TokenSession, User
from smartflow.accounts.operations import (
    RefreshTokenRefused,
    WrongCredentials,
    lock_user,
    rotate_session,
    unlock_user,
)
from smartflow.accounts.queries import SessionEnded, authenticate_token
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import Forbidden
from tests.factories import sign_in
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


def test_locked_user_keeps_no_session_whatever_their_devices_do_meanwhile(alice):
    for _ in range(3):
        old = [sign_in(alice) for _ in range(4)]
        rotations = [lambda pair=pair: rotate_session(refresh_token=pair.refresh_token, now=utc_now()) for pair in old]

        results = run_at_once(
            *rotations, *[lambda: sign_in(alice)] * 2, lambda: lock_user(user_id=alice.pk, now=utc_now())
        )

        failures = [result for result in results if isinstance(result, Exception)]
        assert [error for error in failures if not isinstance(error, Forbidden)] == []
        assert not User.objects.get(pk=alice.pk).is_active
        unlock_user(user_id=alice.pk, now=utc_now())
        assert not TokenSession.objects.filter(user=alice, revoked_at__isnull=True).exists()
        for pair in (*old, *[result for result in results if isinstance(result, TokenPair)]):
            with pytest.raises(SessionEnded):
                authenticate_token(header=f"Bearer {pair.access_token}", now=utc_now())


def test_refusals_of_a_locked_user_name_no_reason_that_helps(alice):
    pair = sign_in(alice)
    lock_user(user_id=alice.pk, now=utc_now())

    with pytest.raises(WrongCredentials):
        sign_in(alice)
    with pytest.raises((RefreshTokenRefused, SessionEnded)):
        rotate_session(refresh_token=pair.refresh_token, now=utc_now())
