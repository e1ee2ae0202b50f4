"""Server-sent events, encoded. Pure; used by the raw ASGI streams.

Source: WHATWG HTML, "Server-sent events" (9.2.6); a line break inside data needs its own `data:` line.
"""

PING = b": ping\n\n"


def encode_event(data: str, *, event_id: str | None = None, retry_ms: int | None = None) -> bytes:
    """Return one event as bytes: optional `retry`, optional `id`, then the data, ended by a blank line."""
    lines = []
    if retry_ms is not None:
        lines.append(f"retry: {retry_ms}")
    if event_id is not None:
        lines.append(f"id: {event_id}")
    lines.extend(f"data: {line}" for line in data.split("\n"))
    return ("\n".join(lines) + "\n\n").encode()
