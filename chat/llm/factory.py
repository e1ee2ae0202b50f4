"""Chooses the language model by settings. Called once a process, by whoever starts executors."""

from django.conf import settings
from django.utils.module_loading import import_string

from chat.llm.port import ChatModel


def build_chat_model() -> ChatModel:
    """Return the model that CHAT_MODEL_FACTORY makes; it opens nothing before its first call."""
    model: ChatModel = import_string(settings.CHAT_MODEL_FACTORY)()
    return model
