"""The model that answers when no provider is configured: deterministic, needs no network, and says what it is.

Called by an executor through the port. Neither chance nor the clock is in its text, so that a test, a demonstration
and a second start give the same answer to the same message.
"""

import asyncio
import re
from collections.abc import AsyncGenerator

from chat.contracts import Role
from chat.llm.offline_extracts import extract_summary, extract_title
from chat.llm.port import ModelEvent, ModelRequest, StreamEnded, TextDelta, UsageReported
from chat.memory.budget import estimate_prompt, estimate_text

MAX_QUOTE_CHARACTERS = 200
DEFAULT_DELAY_SECONDS = 0.015

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufad9\U00020000-\U000323af"
_IS_CHINESE = re.compile(f"[{_HAN}]")
# A Han character is a token; so is any other word with the blanks before it. Together the tokens are the text.
_TOKENS = re.compile(rf"[{_HAN}]|\s*[^\s{_HAN}]+|\s+")

_ENGLISH = """This is SmartFlow's offline model: no language model is connected, so this text is put together by rule.

You wrote: “{quote}” (of our conversation, I was given {number} of your messages)

What works without a model:
- your message and this answer are saved, counted and kept through a restart;
- the answer streams token by token, as a real one does;
- conversations can be listed, renamed, archived and deleted.

To connect a real model, set OPENAI_API_KEY, OPENAI_BASE_URL for a provider other than OpenAI, and \
SMARTFLOW_MODEL_WORKER for the model's name, then restart."""

_CHINESE = """这里是 SmartFlow 的离线模型：尚未连接语言模型，这段文字是按固定规则拼出来的。

你写的是：“{quote}”（本次对话中，我看到了你的 {number} 条消息）

没有模型时也可以：
- 保存你的消息和这条回复，计数，重启之后仍然都在；
- 像真正的模型一样逐字输出；
- 查看、重命名、归档和删除对话。

要连接真正的模型，请设置 OPENAI_API_KEY；如果不是 OpenAI 的服务，再设置 OPENAI_BASE_URL；\
用 SMARTFLOW_MODEL_WORKER 指定模型名称，然后重启。"""


class OfflineChatModel:
    """The ChatModel that needs nobody."""

    def __init__(self, *, delay_seconds: float = DEFAULT_DELAY_SECONDS) -> None:
        self._delay_seconds = delay_seconds

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ChatModel.stream. Usage is counted by the estimate rule, which is this model's own tokenizer."""
        answer = compose_answer(request)
        # Nobody watches a title or a summary being written.
        delay_seconds = self._delay_seconds if request.purpose == "answer" else 0
        for token in _TOKENS.findall(answer):
            await asyncio.sleep(delay_seconds)
            yield TextDelta(token)
        prompt_tokens = estimate_prompt(request.messages, system_prompt=request.system_prompt)
        completion_tokens = estimate_text(answer)
        yield UsageReported(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)
        yield StreamEnded("stop")

    async def aclose(self) -> None:
        """Nothing to give back."""


def compose_answer(request: ModelRequest) -> str:
    """Return the whole answer, in Chinese when the last message holds Han characters, else in English."""
    if request.purpose == "title":
        return extract_title(request.messages)
    if request.purpose == "summary":
        return extract_summary(request.messages, max_tokens=request.max_output_tokens)
    said = [message.content for message in request.messages if message.role is Role.USER]
    last = said[-1] if said else ""
    text = _CHINESE if _IS_CHINESE.search(last) else _ENGLISH
    return text.format(quote=_quote(last), number=len(said))


def _quote(message: str) -> str:
    # No model needs more than the beginning here, and neither does the reader who has just written it.
    line = " ".join(message[: MAX_QUOTE_CHARACTERS * 4].split())
    return line if len(line) <= MAX_QUOTE_CHARACTERS else line[:MAX_QUOTE_CHARACTERS] + "…"
