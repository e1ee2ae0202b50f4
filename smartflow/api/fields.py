"""Fields that the routes of several apps take: moments and ids."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

# What every database keeps and every zone can show.
EARLIEST, LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
MAX_ID = 2**63 - 1


class UserMoment(serializers.DateTimeField):
    """A moment in ISO 8601; without a zone it is the clock time of the user, whose zone is the context's `zone`."""

    default_error_messages = {
        "out_of_range": _("Give a moment between 1970 and 9999."),
        "skipped": _("This clock time does not exist in your time zone, because the clock is put forward."),
    }

    def enforce_timezone(self, value: datetime) -> datetime:
        """Return the moment in UTC."""
        try:
            moment = (value if value.tzinfo else value.replace(tzinfo=self._zone())).astimezone(UTC)
        except OverflowError:
            self.fail("out_of_range")
        if not EARLIEST <= moment <= LATEST:
            self.fail("out_of_range")
        if value.tzinfo is None and moment.astimezone(self._zone()).replace(tzinfo=None) != value:
            self.fail("skipped")
        return moment

    def _zone(self) -> ZoneInfo:
        zone: ZoneInfo = self.context["zone"]
        return zone


class RowId(serializers.IntegerField):
    """The id of a row."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, max_value=MAX_ID, **kwargs)
