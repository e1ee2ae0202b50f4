"""Marks text for translation where no framework may be imported; the edge translates it."""


def noop(message: str) -> str:
    """Return the message unchanged; `makemessages` finds it under the name `_`."""
    return message


def bounded(text: str, *, max_bytes: int) -> str:
    """Cut text to at most `max_bytes` of UTF-8 without splitting a character; a cut ends in `…`."""
    raw = text.encode("utf-8", errors="replace")
    if len(raw) <= max_bytes:
        return raw.decode("utf-8")
    return raw[: max_bytes - 3].decode("utf-8", errors="ignore") + "…"
