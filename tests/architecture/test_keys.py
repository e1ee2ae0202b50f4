"""Kept answers hold no secret: which routes may be idempotent."""

from django.urls import URLPattern, URLResolver, get_resolver

from smartflow.accounts.api import views as accounts
from smartflow.api.idempotency import IdempotentView


def every_view(resolver: URLResolver):
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            yield from every_view(entry)
        elif isinstance(entry, URLPattern) and hasattr(entry.callback, "view_class"):
            yield entry.callback.view_class


def test_idempotent_views_know_their_user_and_answer_with_no_token():
    views = {view for view in every_view(get_resolver()) if issubclass(view, IdempotentView)}
    assert views
    for view in views:
        assert view.authentication_classes, view
        assert view.permission_classes == IdempotentView.permission_classes, view
    assert not views & {accounts.RegisterView, accounts.LoginView, accounts.RefreshTokenView}


def test_every_idempotent_method_exists_and_its_view_keeps_its_own_order():
    for view in (view for view in every_view(get_resolver()) if issubclass(view, IdempotentView)):
        assert view.idempotent_methods, view
        assert all(hasattr(view, name) for name in view.idempotent_methods), view
        assert view.dispatch is IdempotentView.dispatch, view
