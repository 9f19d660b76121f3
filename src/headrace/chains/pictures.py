"""Images that a step asks about: found by what its expressions say, held to a size, told by content.

A step that is written knows its images by their digests only. Their bytes are read again when they
are sent, so that rows that wait hold none.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from attrs import field, frozen

from headrace.chains.expressions import Expression
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import ContentPart, ImagePart, TextPart

MOST_IMAGE_BYTES = 20 << 20
_MOST_BYTES_UNDER_WAY = 64 << 20
_DIGEST_BYTES = 16
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_KINDS = "PNG, JPEG, GIF or WebP"
# What base64 makes of the first bytes of each kind: a column of bytes comes as that.
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGODdh", "R0lGODlh", "UklGR")


@frozen
class Picture:
    """One image of a request: what it was when its row was read, and where it is found."""

    digest: bytes
    size: int
    place: str
    source: Path | str = field(repr=False)

    def part(self) -> ImagePart:
        """It as it is sent; raises LLMInvalidRequestError where its file is another by now."""
        if isinstance(self.source, str) and _is_url(self.source):
            return ImagePart(url=self.source)
        data, kind = _read(self.source, self.place)
        if _digest(data) != self.digest:
            raise LLMInvalidRequestError(
                f"{self.place}: {str(self.source)!r} has changed since its row was read; run again",
                param=self.place,
            )
        return ImagePart(data=data, media_type=kind)


class Room:
    """Lets as many requests with images be under way as ``most`` bytes of these allow."""

    def __init__(self, most: int = _MOST_BYTES_UNDER_WAY) -> None:
        self._most = self._left = most
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def of(self, pictures: Iterable[Picture]) -> AsyncIterator[None]:
        """Room for ``pictures``; who needs more than there is has all of it."""
        size = min(self._most, sum(each.size for each in pictures))
        async with self._changed:
            await self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            self._left += size
            async with self._changed:
                self._changed.notify_all()


def pictures_of(expressions: Iterable[Expression], seen: Mapping[str, Any]) -> tuple[Picture, ...]:
    """The images that ``expressions`` name; raises LLMInvalidRequestError for what is none."""
    return tuple(
        _picture(each, expression.place)
        for expression in expressions
        for each in _each_of(expression.value(seen))
    )


def with_pictures(text: str, pictures: Iterable[Picture]) -> tuple[ContentPart, ...]:
    """The content of a message: its images, and ``text`` behind them."""
    return (*(each.part() for each in pictures), TextPart(text=text))


def _each_of(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _each_of(each)
    else:
        yield value


def _picture(value: Any, place: str) -> Picture:
    if isinstance(value, Mapping):  # as Hugging Face's datasets have an image
        data = value.get("bytes")
        value = value.get("path") if data is None else data
        if isinstance(value, str) and data is not None:
            value = f"data:;base64,{value}"
    if isinstance(value, bytes):
        value = f"data:;base64,{b64encode(value).decode()}"
    if not isinstance(value, str) or not value:
        raise LLMInvalidRequestError(
            f"{place} gives {value!r}"[:200] + ", must be a file's path, a data: URL, a URL, or "
            "the image's bytes",
            param=place,
        )
    if _is_url(value):
        return Picture(_digest(value.encode()), 0, place, value)
    source: str | Path = value if _in_text(value, place) is not None else Path(value)
    data, _ = _read(source, place)
    return Picture(_digest(data), len(data), place, source)


def _is_url(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def _read(source: Path | str, place: str) -> tuple[bytes, str]:
    """The bytes of an image, and of which kind it is."""
    if isinstance(source, Path):
        data, place = _of_file(source, place), f"{place}, {str(source)!r}"
    else:
        data = _in_text(source, place) or b""
    if len(data) > MOST_IMAGE_BYTES:
        raise LLMInvalidRequestError(
            f"{place}: it is larger than {MOST_IMAGE_BYTES >> 20} MiB, the most that is sent",
            param=place,
        )
    return data, _kind_of(data, place)


def _in_text(value: str, place: str) -> bytes | None:
    """The bytes of a data URL or of a column of bytes; None for what is a path."""
    if value.startswith("data:"):
        head, comma, text = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise LLMInvalidRequestError(
                f"{place} gives {value[:40]!r}, must be a data: URL in base64", param=place
            )
        try:
            return b64decode(text, validate=True)
        except ValueError as error:
            raise LLMInvalidRequestError(f"{place}: not base64: {error}", param=place) from error
    if not value.startswith(_BASE64_STARTS):
        return None
    try:
        return b64decode(value, validate=True)
    except binascii.Error:
        return None  # a path that begins like one


def _of_file(path: Path, place: str) -> bytes:
    try:
        if not path.is_file():
            raise LLMInvalidRequestError(
                f"{place} gives {str(path)[:200]!r}, which is no file", param=place
            )
        with path.open("rb") as file:
            return file.read(MOST_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise LLMInvalidRequestError(
            f"{place} gives {str(path)[:200]!r}, which cannot be read: {error}", param=place
        ) from error


def _kind_of(data: bytes, place: str) -> str:
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise LLMInvalidRequestError(f"{place}: not an image; {_KINDS} is needed", param=place)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
