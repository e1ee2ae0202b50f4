"""Routes of accounts, below /api/v1/user/."""

from django.urls import path

from smartflow.accounts.api import views

urlpatterns = [
    path("register", views.RegisterView.as_view()),
    path("login", views.LoginView.as_view()),
    path("refresh-token", views.RefreshTokenView.as_view()),
    path("logout", views.LogoutView.as_view()),
    path("me", views.MeView.as_view()),
    path("quota", views.QuotaView.as_view()),
    path("sessions", views.SessionsView.as_view()),
    path("sessions/end-all", views.EndAllSessionsView.as_view()),
    path("sessions/<uuid:session_id>", views.SessionView.as_view()),
]
