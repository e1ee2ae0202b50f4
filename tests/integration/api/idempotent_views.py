"""A counter behind idempotency keys: what the edge promises, without a feature around it."""

from django.db.models import F
from django.urls import path
from rest_framework.response import Response

from smartflow.accounts.models import User
from smartflow.api.idempotency import IdempotentView
from smartflow.kernel.errors import Conflict

URL = "/api/v1/count"


class Counting(IdempotentView):
    """Counts up, and then does what the body asks for."""

    idempotent_methods = ("post", "put")

    def post(self, request):
        User.objects.filter(pk=request.user.pk).update(token_usage=F("token_usage") + 1)
        during(request)
        then = request.data.get("then", "")
        if then == "conflict":
            raise Conflict
        if then == "crash":
            raise RuntimeError
        if then == "503":
            return Response({"count": count_of(request.user.pk)}, status=503)
        return Response({"count": count_of(request.user.pk), "text": "字\ud800"}, status=201, headers={"X-Own": "1"})

    put = post

    def patch(self, request):
        return self.post(request)


def count_of(user_id):
    return User.objects.get(pk=user_id).token_usage


def during(request):
    """Replaced by tests that look into the middle of a request."""


urlpatterns = [path(URL.lstrip("/"), Counting.as_view()), path("api/v1/other", Counting.as_view())]
