"""Users, login, token sessions and the token quota."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "smartflow.accounts"
    label = "accounts"
