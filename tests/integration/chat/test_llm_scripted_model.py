"""The scripted server keeps what it promises: tests that stand on it would otherwise prove nothing."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.scripted_model import ScriptedModel, running_scripted_model
from tests.scripted_model.scenario import Scenario, ScenarioMisspelled, read_scenario


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedModel]:
    with running_scripted_model() as running:
        yield running


def post(scripted: ScriptedModel, *, model: str = "scripted", message: str = "hi", stream: bool = True) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": message}], "stream": stream}
    request = urllib.request.Request(f"{scripted.base_url}/chat/completions", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        content: bytes = response.read()
    return content


def test_read_scenario_takes_the_message_before_the_model_name() -> None:
    scenario = read_scenario("scripted:tokens=9,delay_ms=2.5,cut", "please [[cut=0 stall after=3]] now")
    assert scenario == Scenario(tokens=9, delay_ms=2.5, cut=False, stall=True, after=3)


@pytest.mark.parametrize("name", ["scripted:tokns=3", "scripted:tokens=many"])
def test_read_scenario_refuses_a_misspelled_word(name: str) -> None:
    with pytest.raises(ScenarioMisspelled):
        read_scenario(name, "")


def test_post_streams_frames_and_done(scripted: ScriptedModel) -> None:
    frames = post(scripted, model="scripted:tokens=2").decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "token 1 ", "token 2 ", None]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_post_is_the_same_every_time(scripted: ScriptedModel) -> None:
    assert post(scripted, message="[[text=emoji tokens=9]]") == post(scripted, message="[[text=emoji tokens=9]]")


def test_post_answers_whole_when_no_stream_is_asked_for(scripted: ScriptedModel) -> None:
    answer = json.loads(post(scripted, model="scripted:tokens=3", stream=False))
    assert answer["choices"][0]["message"]["content"] == "token 1 token 2 token 3 "
    assert answer["usage"]["completion_tokens"] == 3


def test_post_refuses_so_many_times_for_each_key(scripted: ScriptedModel) -> None:
    scripted.reset()
    for key in ("a", "b"):
        with pytest.raises(urllib.error.HTTPError) as raised:
            post(scripted, message=f"[[status=429 times=1 retry_after=3 key={key}]]")
        assert (raised.value.code, raised.value.headers["Retry-After"]) == (429, "3")
        raised.value.close()
        assert b"token 1" in post(scripted, message=f"[[status=429 times=1 retry_after=3 key={key}]]")
    assert scripted.seen()["requests"] == 4


def test_reset_forgets(scripted: ScriptedModel) -> None:
    post(scripted)
    scripted.reset()
    assert not any(scripted.seen().values())
