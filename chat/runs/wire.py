"""The JSON of a run's events: OpenAI's chat.completion.chunk with our `extra`, and the error object. Pure.

Source: spec/platform-and-chat.md §8; OpenAI API reference, "The chat completion chunk object".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils import translation

from chat.contracts import RunSnapshot, RunState
from chat.runs.messages import message_of
from smartflow.kernel.text import noop as _

CONTINUE_OFFER = _("You can let the assistant go on from here.")


class ChunkEncoder:
    """Encodes the chunks of one run. What they share is encoded once; a token costs one json.dumps of its text."""

    def __init__(self, *, run_id: str, model: str, created: int) -> None:
        self.run_id = run_id
        head = {"id": run_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = json.dumps(head, separators=(",", ":"))[:-1]

    def text(self, content: str, *, is_first: bool) -> str:
        """Return the chunk of a piece of text, as it is: blanks and line breaks are part of it."""
        role = '"role":"assistant",' if is_first else ""
        delta = f'{{{role}"content":{_json(content)}}}'
        return f'{self._head},"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}'

    def event(self, data: Mapping[str, Any]) -> str:
        """Return the chunk of a structured event; it has no choices."""
        return f'{self._head},"extra":{_json(data)}}}'

    def snapshot(self, text: str, events: Sequence[Mapping[str, Any]]) -> str:
        """Return the chunk that replaces all that its reader has seen of this run."""
        delta = f'{{"role":"assistant","content":{_json(text)}}}'
        extra = {"kind": "snapshot", "display_mode": "replace", "events": list(events)}
        choice = f'{{"index":0,"delta":{delta},"finish_reason":null}}'
        return f'{self._head},"choices":[{choice}],"extra":{_json(extra)}}}'

    def finish(self, extra: Mapping[str, Any] | None = None) -> str:
        """Return the last chunk of an answer that ended as somebody wished."""
        tail = f',"extra":{_json(extra)}' if extra else ""
        return f'{self._head},"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]{tail}}}'


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended, as its readers are told."""

    state: RunState
    error_code: str = ""
    retry_after_seconds: int | None = None
    may_continue: bool = False

    @classmethod
    def of(cls, snapshot: RunSnapshot) -> "RunEnd | None":
        """Return a run's end as the database has it; None while it is live."""
        if snapshot.state in (RunState.QUEUED, RunState.RUNNING):
            return None
        return cls(
            state=snapshot.state,
            error_code=snapshot.error_code,
            retry_after_seconds=snapshot.retry_after_seconds,
            may_continue=bool(snapshot.text) and snapshot.state != RunState.FINISHED,
        )

    def encode(self, chunks: ChunkEncoder, language: str) -> str:
        """Return the event that tells it, in the reader's language; the end mark comes behind it."""
        offer = _offer(chunks.run_id, language) if self.may_continue else None
        if self.state == RunState.FINISHED:
            return chunks.finish()
        if self.state == RunState.STOPPED:
            return chunks.finish({"kind": "finish", "status": {"code": "stopped"}, **(offer or {})})
        with translation.override(language):
            message = translation.gettext(message_of(self.error_code))
        return encode_error(
            code=self.error_code, message=message, retry_after_seconds=self.retry_after_seconds, extra=offer
        )


def _offer(run_id: str, language: str) -> dict[str, Any]:
    with translation.override(language):
        summary = translation.gettext(CONTINUE_OFFER)
    return {"interrupt": {"type": "continue", "interaction_id": run_id, "summary": summary}}


def encode_error(
    *, code: str, message: str, retry_after_seconds: int | None = None, extra: Mapping[str, Any] | None = None
) -> str:
    """Return the event that tells a reader why the answer ends here, how long to wait, and what can be done."""
    error: dict[str, str | int] = {"message": message, "type": "server_error", "code": code}
    if retry_after_seconds is not None:
        error["retry_after_seconds"] = retry_after_seconds
    body: dict[str, object] = {"error": error}
    if extra:
        body["extra"] = {"kind": "interrupt", **extra}
    return _json(body)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
