"""Images that a step asks about: found by what its expressions say, held to a size, told by content.

A step that is written knows its images by their digests only. Their bytes are read again when they
are sent, so that rows that wait hold none.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from attrs import field, frozen

from headrace.chains.expressions import Expression
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import ContentPart, ImagePart, TextPart

MOST_IMAGE_BYTES = 20 << 20
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
    """One image of a request: a file, its bytes, or where the provider finds it."""

    digest: bytes
    place: str
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    url: str | None = None

    def part(self) -> ImagePart:
        """It as it is sent; raises LLMInvalidRequestError where its file is another by now."""
        if self.url is not None:
            return ImagePart(url=self.url)
        data = self.data
        if data is None:
            assert self.path is not None
            data = _bytes_of(self.path, self.place)
            if _digest(data) != self.digest:
                raise LLMInvalidRequestError(
                    f"{self.place}: {str(self.path)!r} has changed since its row was read; run "
                    "again",
                    param=self.place,
                )
        return ImagePart(data=data, media_type=_kind_of(data, self.place))


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
        if isinstance(data, str):
            value = _decoded(data, place)
    if isinstance(value, bytes):
        return _of_bytes(value, place)
    if not isinstance(value, str) or not value:
        raise LLMInvalidRequestError(
            f"{place} gives {value!r}"[:200] + ", must be a file's path, a data: URL, a URL, or "
            "the image's bytes",
            param=place,
        )
    if value.startswith(("https://", "http://")):
        return Picture(_digest(value.encode()), place, url=value)
    data = _in_text(value, place)
    if data is not None:
        return _of_bytes(data, place)
    path = Path(value)
    return Picture(_digest(_bytes_of(path, place)), place, path=path)


def _in_text(value: str, place: str) -> bytes | None:
    """The bytes of a data URL or of a column of bytes; None for what is a path."""
    if value.startswith("data:"):
        head, comma, text = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise LLMInvalidRequestError(
                f"{place} gives {value[:40]!r}, must be a data: URL in base64", param=place
            )
        return _decoded(text, place)
    if not value.startswith(_BASE64_STARTS):
        return None
    try:
        return b64decode(value, validate=True)
    except binascii.Error:
        return None  # a path that begins like one


def _of_bytes(data: bytes, place: str) -> Picture:
    _check_size(len(data), "the image", place)
    _kind_of(data, place)
    return Picture(_digest(data), place, data=data)


def _bytes_of(path: Path, place: str) -> bytes:
    try:
        if not path.is_file():
            raise LLMInvalidRequestError(
                f"{place} gives {str(path)[:200]!r}, which is no file", param=place
            )
        with path.open("rb") as file:
            data = file.read(MOST_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise LLMInvalidRequestError(
            f"{place} gives {str(path)[:200]!r}, which cannot be read: {error}", param=place
        ) from error
    _check_size(len(data), repr(str(path)), place)
    _kind_of(data, f"{place}, {str(path)!r}")
    return data


def _check_size(size: int, what: str, place: str) -> None:
    if size > MOST_IMAGE_BYTES:
        raise LLMInvalidRequestError(
            f"{place}: {what} is larger than {MOST_IMAGE_BYTES >> 20} MiB, the most that is sent",
            param=place,
        )


def _decoded(text: str, place: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise LLMInvalidRequestError(f"{place}: not base64: {error}", param=place) from error


def _kind_of(data: bytes, place: str) -> str:
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise LLMInvalidRequestError(f"{place}: not an image; {_KINDS} is needed", param=place)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
