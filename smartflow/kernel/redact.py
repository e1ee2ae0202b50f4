"""Makes error text fit to be stored and logged: no credentials, bounded. Pure."""

import re

from smartflow.kernel.text import bounded

_SECRETS = (
    (re.compile(r"(\w+://)[^\s/@]+@"), r"\1***@"),  # user:password in a URL
    (re.compile(r"\b(sk|pk|rk)-[A-Za-z0-9_-]{8,}"), r"\1-***"),  # API keys
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), "***"),  # JSON web tokens
    (re.compile(r"(?i)((?:password|passwd|secret|api[_-]?key|token)[\"']?\s*[=:]\s*)[\"']?[^\s\"',;&]+"), r"\1***"),
)


def describe_error(error: BaseException, *, max_bytes: int = 2000) -> str:
    """Return `Type: message`, without credentials and at most `max_bytes` long."""
    text = f"{type(error).__name__}: {_text_of(error)}"
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return bounded(text, max_bytes=max_bytes)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as another:
        return f"(its text cannot be made: {type(another).__name__})"
