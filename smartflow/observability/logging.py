"""Log lines: time, level, logger, request id, a sentence, then the fields as key=value."""

import logging
from datetime import UTC, datetime

from smartflow.observability.request_id import current_request_id

_STANDARD = set(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "request_id",
    "taskName",
    "color_message",
}


class RequestIdFilter(logging.Filter):
    """Puts the current request's id on every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id() or "-"
        return True


class LineFormatter(logging.Formatter):
    """One line a record; `extra` fields follow the sentence; a traceback follows indented below."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        fields = "".join(f" {key}={value}" for key, value in record.__dict__.items() if key not in _STANDARD)
        request_id = getattr(record, "request_id", "-")
        line = f"{moment} {record.levelname:<7} {record.name} [{request_id}] {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n    " + self.formatException(record.exc_info).replace("\n", "\n    ")
        return line
