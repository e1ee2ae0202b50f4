"""Reads request bodies: JSON only, bounded before it is parsed and after."""

from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.parsers import JSONParser

from smartflow.api.json_limits import read_json


class BoundedJSONParser(JSONParser):
    """Django bounds `request.body` only; REST framework reads the stream past that bound."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the parsed body, or raise when it is too large, no JSON, or holds what no route takes."""
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise RequestDataTooBig
        return read_json(body)
