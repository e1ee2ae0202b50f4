"""The URL conf: every route Django answers. The chat stream stands beside Django in asgi.py."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from smartflow.api.docs import RedocPage, SwaggerPage

handler400 = "smartflow.api.django_errors.bad_request"
handler403 = "smartflow.api.django_errors.permission_denied"
handler404 = "smartflow.api.django_errors.page_not_found"
handler500 = "smartflow.api.django_errors.server_error"

urlpatterns = [
    path("", RedirectView.as_view(url="/app/")),
    path("app/", include("smartflow.web.app.urls")),
    path("admin/", include("smartflow.web.urls")),
    path("admin/", admin.site.urls),
    path("", include("smartflow.observability.health")),
    path("", include("smartflow.observability.metrics")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SwaggerPage.as_view(url_name="schema"), name="docs"),
    path("api/redoc/", RedocPage.as_view(url_name="schema"), name="redoc"),
    path("api/v1/user/", include("smartflow.accounts.api.urls")),
    path("api/v1/", include("tasks.api.urls")),
    path("api/v1/", include("chat.api.urls")),
]
