"""The page's routes, below /app/. Its live stream stands beside Django: see live.py and smartflow/streams.py."""

from django.urls import path
from django.views.i18n import set_language

from smartflow.web.app import page, sign_in

app_name = "app"
urlpatterns = [
    path("", page.show_page, name="page"),
    path("sign-in", sign_in.sign_in, name="sign_in"),
    path("sign-up", sign_in.sign_up, name="sign_up"),
    path("sign-out", sign_in.sign_out, name="sign_out"),
    path("token", sign_in.lend_token, name="token"),
    path("language", set_language, name="language"),
]
