"""Makes error text fit to be stored and logged: no credentials, bounded. Pure."""

import re

from smartflow.kernel.text import bounded

_NAME = r"(?:passw(?:or)?d\w*|secret\w*|api[_-]?key|access[_-]?key|private[_-]?key|token)"
_ANSWERS = r"(?:not|no|too|an?|the|required|missing|invalid|expired|revoked|empty|wrong|incorrect|unknown|malformed)"
_VALUE = r"""(?:"[^"]*"|'[^']*'|[\\"']*[^\s\\"',;&]+)"""
_SECRETS = (
    # user:password in a URL; a password may hold what ends one: up to the last @
    (re.compile(r"://(?:[^\s/@:]*:\S*|[^\s/@]+)@"), "://***@"),
    (re.compile(r"\b(sk|pk|rk)-[A-Za-z0-9_-]{8,}"), r"\1-***"),  # API keys
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}"), r"\1***"),
    (re.compile(r"(?i)\b(authorization[\\\"']*\s*[=:]\s*[\\\"']*)(?:(\w+)\s+)?[^\s\\\"',;]+"), r"\1\2 ***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(?i)\b(token)\s+(?=\S*\d)[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), "***"),  # JSON web tokens
    (re.compile(rf"(?i)({_NAME}[\\\"']*\s*[=:]\s*){_VALUE}"), r"\1***"),
    (re.compile(rf"(?i)({_NAME}\s+(?:is|was)\s+)(?!{_ANSWERS}\b){_VALUE}"), r"\1***"),
)
# What is looked through is bounded too: an error may quote megabytes.
_LOOKED_THROUGH = 4


def describe_error(error: BaseException, *, max_bytes: int = 2000) -> str:
    """Return `Type: message`, without credentials and at most `max_bytes` long."""
    text = f"{type(error).__name__}: {_text_of(error)}"[: _LOOKED_THROUGH * max_bytes]
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return bounded(text, max_bytes=max_bytes)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as another:
        return f"(its text cannot be made: {type(another).__name__})"
