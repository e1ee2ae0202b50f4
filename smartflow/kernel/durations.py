"""Lengths of time as people read them at a glance. Pure."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def compact_duration(seconds: float) -> str:
    """Return the two largest units: `7s`, `3m 20s`, `2h 05m`, `4d 7h`. Negative lengths count as 0."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"
