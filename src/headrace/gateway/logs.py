"""Log lines: JSON for machines, short text for a terminal. Never a key, a prompt or an answer."""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone
from typing import IO

from headrace.gateway.config import LoggingConfig
from headrace.stores.secret import RedactingFilter

# What every LogRecord has; anything else came with ``extra=``.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, then what came with ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        import msgspec

        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _USUAL}
        if record.exc_info:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class ShortText(logging.Formatter):
    """Time, level, message, and of a request its duration and id."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc).astimezone()
        line = f"{at:%H:%M:%S} {record.levelname.lower():<7} {record.getMessage()}"
        took = getattr(record, "duration_ms", None)
        if took is not None:
            line += f" {took:.0f} ms"
        request_id = getattr(record, "request_id", None)
        if request_id is not None:
            line += f" {request_id}"
        if record.exc_info:
            line += "\n" + (record.exc_text or self.formatException(record.exc_info))
        return line


def set_up(config: LoggingConfig, stream: IO[str] | None = None) -> None:
    """Send all of headrace's logs, and warnings of the server's, to ``stream`` (standard error)."""
    stream = sys.stderr if stream is None else stream
    as_text = config.format == "text" or (config.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    handler.setFormatter(ShortText() if as_text else JsonLines())
    for name, level in (("headrace", config.level.upper()), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
