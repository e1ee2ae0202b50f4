"""The model is chosen by settings."""

import pytest
from pytest_django import Settings

from chat.contracts import HistoryMessage, Role
from chat.llm.factory import build_chat_model
from chat.llm.offline import OfflineChatModel
from chat.llm.port import ModelRequest, StreamEnded
from tests.scripted_model import running_scripted_model


def test_build_chat_model_is_offline_without_a_key(settings: Settings) -> None:
    assert settings.OPENAI_API_KEY == ""
    assert isinstance(build_chat_model(), OfflineChatModel)


def test_build_chat_model_refuses_an_unknown_factory(settings: Settings) -> None:
    settings.CHAT_MODEL_FACTORY = "chat.llm.crystal.Ball"
    with pytest.raises(ImportError, match="crystal"):
        build_chat_model()


async def test_build_chat_model_calls_the_configured_provider(settings: Settings) -> None:
    request = ModelRequest(
        model="strategist", messages=(HistoryMessage(role=Role.USER, content="hello"),), thinking="true"
    )
    with running_scripted_model() as scripted:
        settings.CHAT_MODEL_FACTORY = "chat.llm.openai_factory.build_openai_model"
        settings.OPENAI_BASE_URL = scripted.base_url
        settings.OPENAI_API_KEY = "sk-test"
        settings.CHAT_MAX_ANSWER_TOKENS = 8000
        settings.CHAT_MODELS = {"worker": "scripted:status=500", "strategist": "scripted:tokens=2"}
        model = build_chat_model()
        events = [event async for event in model.stream(request)]
        await model.aclose()
        (body,) = scripted.seen()["bodies"]
    assert (body["model"], body["max_tokens"]) == ("scripted:tokens=2", 8000)
    assert events[-1] == StreamEnded("stop")
