"""Log lines: JSON for machines, short text for a terminal. Never a key, a prompt or an answer."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from select import PIPE_BUF
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


class RequestLines:
    """Writes a JSON line a request, as JsonLines would, at a tenth of the cost of a LogRecord.

    The lines of one turn of the event loop go out in one piece. Nothing in them is a caller's to
    choose but the model's name, which is one that is known, the path without its query, and an id
    of a plain word.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: list[bytes] = []
        self._second = 0
        self._day_time = ""

    def write(
        self,
        method: str,
        path: str,
        status: int,
        took_s: float,
        request_id: str,
        model: str | None,
    ) -> None:
        """A request was answered with ``status``, ``took_s`` after it came."""
        import msgspec

        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._day_time = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        line = msgspec.json.encode(
            {
                "time": f"{self._day_time}.{int((now - second) * 1e6):06d}+00:00",
                "level": "info",
                "logger": _requests.name,
                "message": f"{method} {path} {status}",
                "request_id": request_id,
                "method": method,
                "path": path,
                "status": status,
                "duration_ms": round(took_s * 1000, 1),
                "model": model,
            }
        )
        self._lines.append(line)
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        for piece in _pieces(lines):
            self._stream.write(piece.decode())
            self._stream.flush()


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """``lines`` with their ends, in pieces that a pipe takes whole: others write to it as well."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) >= PIPE_BUF:
            yield piece
            piece = b""
        piece += line + b"\n"
    yield piece


_requests = logging.getLogger("headrace.requests")
_lines: RequestLines | None = None


def log_request(
    method: str, path: str, status: int, took_s: float, request_id: str, model: str | None
) -> None:
    """One line for a request."""
    if _lines is not None and request_id.startswith("req_"):
        _lines.write(method, path, status, took_s, request_id, model)
        return
    _requests.info(
        "%s %s %d",
        method,
        # It came percent-decoded: line ends may be in it, and what moves a terminal's place.
        path if path.isprintable() else repr(path)[1:-1],
        status,
        extra={
            "request_id": request_id,
            "method": method,
            "path": path,
            "status": status,
            "duration_ms": round(took_s * 1000, 1),
            "model": model,
        },
    )


def set_up(config: LoggingConfig, stream: IO[str] | None = None) -> None:
    """Send all of headrace's logs, and warnings of the server's, to ``stream`` (standard error)."""
    stream = sys.stderr if stream is None else stream
    as_text = config.format == "text" or (config.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    handler.setFormatter(ShortText() if as_text else JsonLines())
    global _lines  # noqa: PLW0603  as logging itself: one for the process
    told = config.level in ("debug", "info")
    _lines = RequestLines(stream) if told and not as_text else None
    for name, level in (("headrace", config.level.upper()), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
