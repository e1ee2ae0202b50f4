"""Conversations, runs and the assistant."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    name = "chat"
