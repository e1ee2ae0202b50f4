"""Makes the OpenAI-compatible model from settings. Imported only where a key is set: the client is slow to import."""

from django.conf import settings

from chat.llm.openai_client import OpenAIChatModel, OpenAIConfig


def build_openai_model() -> OpenAIChatModel:
    """Return the model; it opens nothing before its first call."""
    return OpenAIChatModel(
        OpenAIConfig(
            base_url=settings.OPENAI_BASE_URL,
            api_key=settings.OPENAI_API_KEY,
            models=settings.CHAT_MODELS,
            max_tokens_field=settings.CHAT_MAX_TOKENS_FIELD,
            max_answer_tokens=settings.CHAT_MAX_ANSWER_TOKENS,
            thinking_field=settings.CHAT_THINKING_FIELD,
            connect_timeout_seconds=settings.CHAT_CONNECT_TIMEOUT_SECONDS,
            silence_timeout_seconds=settings.CHAT_SILENCE_TIMEOUT_SECONDS,
            retries=settings.CHAT_MODEL_RETRIES,
            # A process may hold this many runs, and each of them needs a connection of its own.
            max_connections=settings.CHAT_MAX_LIVE_RUNS,
        )
    )
