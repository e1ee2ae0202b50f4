"""The account routes: translate in, one domain call, translate out."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from smartflow.accounts import operations, queries
from smartflow.accounts.api import serializers as shapes
from smartflow.accounts.api.authentication import signed_in_user
from smartflow.accounts.contracts import Client
from smartflow.api.client_address import address_of
from smartflow.api.envelope import NO_DATA
from smartflow.api.schema import documents_errors, no_data
from smartflow.api.schema_links import Link, leads_to
from smartflow.api.serializers import StrictSerializer
from smartflow.kernel.clock import utc_now


class _PublicView(APIView):
    """Needs no token, and is not disturbed by a stale one."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_group = "auth"


class RegisterView(_PublicView):
    """Registering."""

    error_codes = ("40003", "40004", "40005", "40006")

    @extend_schema(request=shapes.RegisterRequest, responses={201: shapes.RegisteredUser}, tags=["user"])
    def post(self, request: Request) -> Response:
        """Create an account."""
        values = _checked(shapes.RegisterRequest, request)
        return Response({"id": operations.register_user(**values)}, status=201)


class LoginView(_PublicView):
    """Signing in."""

    throttle_field = "username"
    error_codes = ("40004", "40005", "40007")

    @extend_schema(request=shapes.LoginRequest, responses={200: shapes.TokenPairShape}, tags=["user"])
    def post(self, request: Request) -> Response:
        """Sign in and open a session."""
        values = _checked(shapes.LoginRequest, request)
        pair = operations.open_session(**values, client=_client_of(request), now=utc_now())
        return Response(shapes.TokenPairShape(pair).data)


class RefreshTokenView(_PublicView):
    """Rotating a session's tokens. A token cannot be guessed, and a whole campus may have one address."""

    throttle_group = "refresh"
    error_codes = ("40004", "40005", "40015", "40016", "40017")

    @extend_schema(request=shapes.RefreshRequest, responses={200: shapes.TokenPairShape}, tags=["user"])
    def post(self, request: Request) -> Response:
        """Exchange the refresh token for the next pair. Using one twice ends the session."""
        values = _checked(shapes.RefreshRequest, request)
        return Response(shapes.TokenPairShape(operations.rotate_session(**values, now=utc_now())).data)


class LogoutView(APIView):
    """Signing out."""

    @extend_schema(request=None, responses={200: no_data()}, tags=["user"])
    def post(self, request: Request) -> Response:
        """End the session of the access token."""
        user = signed_in_user(request)
        operations.end_session(by=user, session_id=user.session_id, now=utc_now())
        return Response(NO_DATA)


class MeView(APIView):
    """The user's own account."""

    @extend_schema(responses={200: shapes.ProfileShape}, tags=["user"])
    def get(self, request: Request) -> Response:
        """Show who is signed in, with the token quota."""
        return Response(shapes.ProfileShape(queries.get_profile(user_id=signed_in_user(request).user_id)).data)

    @extend_schema(request=shapes.ProfileChange, responses={200: shapes.ProfileShape}, tags=["user"])
    @documents_errors("40004", "40005")
    def patch(self, request: Request) -> Response:
        """Change the time zone, in which the weeks of the quota begin."""
        values = _checked(shapes.ProfileChange, request)
        profile = operations.change_time_zone(user_id=signed_in_user(request).user_id, **values)
        return Response(shapes.ProfileShape(profile).data)


class QuotaView(APIView):
    """The user's token quota."""

    @extend_schema(responses={200: shapes.QuotaShape}, tags=["user"])
    def get(self, request: Request) -> Response:
        """Show what may be used this week, what is used and held, what used it, and when it starts anew."""
        quota = queries.get_quota(user_id=signed_in_user(request).user_id, now=utc_now())
        return Response(shapes.QuotaShape(quota).data)


class SessionsView(APIView):
    """The user's sessions."""

    @extend_schema(responses={200: shapes.SessionShape(many=True)}, tags=["user"])
    @leads_to(Link("user_sessions_destroy", parameters={"session_id": "$response.body#/data/0/id"}))
    def get(self, request: Request) -> Response:
        """List the live sessions, newest first."""
        user = signed_in_user(request)
        rows = queries.list_sessions(user_id=user.user_id, current_session_id=user.session_id, now=utc_now())
        return Response(shapes.SessionShape(rows, many=True).data)


class SessionView(APIView):
    """One of the user's sessions."""

    error_codes = ("40400",)

    @extend_schema(request=None, responses={200: no_data()}, tags=["user"])
    def delete(self, request: Request, session_id: UUID) -> Response:
        """End one session. Ending an ended one changes nothing."""
        operations.end_session(
            by=signed_in_user(request), session_id=str(session_id), now=utc_now(), reason="ended_by_user"
        )
        return Response(NO_DATA)


class EndAllSessionsView(APIView):
    """All of the user's sessions."""

    error_codes = ("40005",)

    @extend_schema(request=shapes.EndAllRequest, responses={200: shapes.EndedSessions}, tags=["user"])
    def post(self, request: Request) -> Response:
        """End all sessions, or all but this one with `keep_current`."""
        values = _checked(shapes.EndAllRequest, request)
        return Response(
            {"ended_count": operations.end_all_sessions(by=signed_in_user(request), **values, now=utc_now())}
        )


def _checked(shape: type[StrictSerializer], request: Request) -> dict[str, Any]:
    serializer = shape(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def _client_of(request: Request) -> Client:
    return Client(user_agent=request.headers.get("User-Agent", ""), ip_address=address_of(request))
