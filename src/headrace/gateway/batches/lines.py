"""The requests in a batch's files: where each stands, and what is wrong with a file that has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from attrs import define, field

from headrace.contracts.batches import BatchProblem
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.batches.faces import FaceRow
from headrace.stores.batches.shelf import StoredItem

_MOST_PROBLEMS = 100


@define(kw_only=True)
class Found:
    """The requests of a batch, or the problems because of which it cannot be begun.

    ``model`` is the one that all of them name, where there is one.
    """

    items: list[StoredItem] = field(factory=list)
    problems: list[BatchProblem] = field(factory=list)
    models: set[str | None] = field(factory=set)

    @property
    def model(self) -> str | None:
        """The model that all of them name."""
        return next(iter(self.models)) if len(self.models) == 1 else None


class _Named(msgspec.Struct):
    model: str | None = None


_named = msgspec.json.Decoder(_Named)


def find(row: FaceRow, endpoint: str, files: Sequence[tuple[str, Path]], most: int) -> Found:
    """The requests in ``files``, each a name and where it lies; it blocks."""
    found, seen = Found(), set[str]()
    for source, path in files:
        for number, start, line in _lines(path):
            if len(found.problems) >= _MOST_PROBLEMS:
                return found
            try:
                item = row.codec.read_item(line, endpoint)
            except LLMInvalidRequestError as wrong:
                _tell(found, wrong.message, wrong.code, wrong.param, number)
                continue
            if item.custom_id is not None and item.custom_id in seen:
                _tell(
                    found,
                    f"The custom_id '{item.custom_id[:100]}' is another request's already.",
                    "duplicate_custom_id",
                    "custom_id",
                    number,
                )
                continue
            if item.custom_id is not None:
                seen.add(item.custom_id)
            if len(found.items) == most:
                _tell(
                    found,
                    f"A batch has at most {most:,} requests here.",
                    "too_many_requests",
                    None,
                    number,
                )
                return found
            found.models.add(_model(item.body))
            found.items.append(
                StoredItem(
                    place=len(found.items),
                    custom_id=item.custom_id,
                    source=source,
                    start=start,
                    length=len(line),
                )
            )
    if not found.items and not found.problems:
        _tell(found, "The input has no requests.", "empty_file", None, None)
    return found


def read(path: Path, item: StoredItem) -> bytes:
    """The line of one request; it blocks."""
    with path.open("rb") as file:
        file.seek(item.start)
        return file.read(item.length)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Each line that is not blank, with its number and where it begins."""
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, start, line
            start += len(line)


def _model(body: bytes) -> str | None:
    try:
        return _named.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # it is told when it is asked


def _tell(
    found: Found, message: str, code: str | None, param: str | None, line: int | None
) -> None:
    found.problems.append(BatchProblem(message=message, code=code, param=param, line=line))
