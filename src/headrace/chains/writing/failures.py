"""``errors.jsonl``: each value that failed, where and why."""

from __future__ import annotations

from pathlib import Path

from headrace.chains.reading.rows import Row, shown
from headrace.chains.values import as_json
from headrace.chains.walk import Failed
from headrace.chains.writing.files import Files


class Errors:
    """Failures, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._files = Files(path)

    def add(self, row: Row, failed: Failed) -> None:
        self.count += 1
        line = {
            "id": row.id,
            "row": row.number,
            "node": failed.node,
            "error": failed.error,
            "message": failed.message,
            "input": failed.item.value,
        }
        try:
            said = as_json(line)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # A value of Python's own that JSON cannot say; what can be shown of it tells more.
            message, value = shown(failed.message), shown(failed.item.value)
            said = as_json({**line, "id": shown(row.id), "message": message, "input": value})
        self._files.here.write(said + b"\n")
        self._files.here.show()  # for whoever follows the run

    def finish(self) -> None:
        self._files.finish()

    def abandon(self) -> None:
        self._files.abandon()
