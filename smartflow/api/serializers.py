"""The serializer every request body and query goes through: unknown fields are refused, with a hint.

JSON has types: where text or a truth belongs, a number is refused, which REST framework would take for one.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext
from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know, because a misspelt one would otherwise be dropped in silence."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the checked values, or raise with one hint for each field that is unknown or of another type."""
        if isinstance(data, Mapping):
            known = [name for name, field in self.fields.items() if not field.read_only]
            wrong = {str(name): [_hint(str(name), known)] for name in data if name not in known}
            wrong |= {name: [self._message(name)] for name in known if self._is_number(name, data)}
            if wrong:
                raise serializers.ValidationError(wrong, code="invalid")
        return super().to_internal_value(data)

    def _message(self, name: str) -> str:
        return str(self.fields[name].error_messages["invalid"])

    def _is_number(self, name: str, data: Mapping[str, Any]) -> bool:
        """Tell whether a number stands where its field would make something else of it."""
        field, value = self.fields[name], data.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and isinstance(field, serializers.CharField | serializers.BooleanField)


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name[:64], known, n=1)
    values = {"known": ", ".join(known) or "-", "near": near[0] if near else ""}
    if near:
        return gettext("Unknown field. Did you mean %(near)s? Known fields: %(known)s.") % values
    return gettext("Unknown field. Known fields: %(known)s.") % values
