"""The JSON of a run's events: OpenAI's chat.completion.chunk, and the error object. Pure.

Source: spec/platform-and-chat.md §8; OpenAI API reference, "The chat completion chunk object".
"""

import json


class ChunkEncoder:
    """Encodes the chunks of one run. What they share is encoded once; a token costs one json.dumps of its text."""

    def __init__(self, *, run_id: str, model: str, created: int) -> None:
        head = {"id": run_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = json.dumps(head, separators=(",", ":"))[:-1]
        self._role_is_due = True

    def text(self, content: str) -> str:
        """Return the chunk of a piece of text, as it is: blanks and line breaks are part of it."""
        role = '"role":"assistant",' if self._role_is_due else ""
        self._role_is_due = False
        delta = f'{{{role}"content":{json.dumps(content, ensure_ascii=False)}}}'
        return f'{self._head},"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}'

    def finish(self) -> str:
        """Return the last chunk of an answer that is whole."""
        return f'{self._head},"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}'


def encode_error(*, code: str, message: str, retry_after_seconds: int | None = None) -> str:
    """Return the event that tells a reader why the answer ends here, and how long to wait where that is known."""
    error: dict[str, str | int] = {"message": message, "type": "server_error", "code": code}
    if retry_after_seconds is not None:
        error["retry_after_seconds"] = retry_after_seconds
    return json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":"))
