"""The serializer every request body and query goes through: unknown fields are refused, with a hint."""

import difflib
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext
from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know, because a misspelt one would otherwise be dropped in silence."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the checked values, or raise with one hint for each unknown field."""
        if isinstance(data, Mapping):
            known = [name for name, field in self.fields.items() if not field.read_only]
            unknown = {str(name): [_hint(str(name), known)] for name in data if name not in known}
            if unknown:
                raise serializers.ValidationError(unknown, code="unknown")
        return super().to_internal_value(data)


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name[:64], known, n=1)
    values = {"known": ", ".join(known) or "-", "near": near[0] if near else ""}
    if near:
        return gettext("Unknown field. Did you mean %(near)s? Known fields: %(known)s.") % values
    return gettext("Unknown field. Known fields: %(known)s.") % values
