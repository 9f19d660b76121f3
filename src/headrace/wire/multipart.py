"""multipart/form-data (RFC 7578), both ways; what is read comes in whatever pieces it likes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.errors import LLMInvalidRequestError

_MOST_HEAD = 8 << 10
_MOST_PARTS = 64
_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))""", re.IGNORECASE)
_PARAMETER = re.compile(r""";\s*([a-z*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]*))""", re.IGNORECASE)
_State: TypeAlias = Literal["preamble", "after", "head", "data", "end"]


@frozen
class PartBegins:
    """A field of the form; ``file_name`` where it is a file."""

    name: str
    file_name: str | None = None
    content_type: str | None = None


@frozen
class PartData:
    """A piece of the latest part."""

    data: bytes


@frozen
class PartEnds:
    """The latest part is complete."""


Event: TypeAlias = PartBegins | PartData | PartEnds


@frozen
class Part:
    """A whole part of a form: a text, or a file where it has a name."""

    name: str
    data: bytes = field(repr=False)
    file_name: str | None = None
    content_type: str | None = None

    @property
    def text(self) -> str:
        """A text part's text."""
        return self.data.decode("utf-8", "replace")


def read_parts(content_type: str, body: bytes) -> tuple[Part, ...]:
    """The parts of a whole form; raises LLMInvalidRequestError where it is none."""
    reader = FormReader(content_type)
    parts: list[Part] = []
    data: list[bytes] = []
    begun = None
    for event in reader.feed(body):
        match event:
            case PartBegins():
                begun = event
                data.clear()
            case PartData(piece):
                data.append(piece)
            case PartEnds():
                assert begun is not None
                parts.append(Part(begun.name, b"".join(data), begun.file_name, begun.content_type))
    if not reader.is_complete:
        raise _no_form("it breaks off before its end")
    return tuple(parts)


def write_parts(parts: Sequence[Part]) -> tuple[str, bytes]:
    """The content type and body of a form of ``parts``."""
    # A hash of them all, so that nobody can write a part that holds it.
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part.data)
    boundary = digest.hexdigest()
    pieces: list[bytes] = []
    for part in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(part.name)}"'
        if part.file_name is not None:
            head += f'; filename="{_quoted(part.file_name)}"'
        if part.content_type is not None:
            head += f"\r\nContent-Type: {part.content_type}"
        pieces += [head.encode(), b"\r\n\r\n", part.data, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return f'multipart/form-data; boundary="{boundary}"', b"".join(pieces)


def write_form(
    fields: Mapping[str, str], file_name: str, content: bytes, *, boundary: str
) -> tuple[str, bytes]:
    """The content type and body of a form with ``fields`` and one file named ``file``.

    ``boundary`` is a word that does not occur in any of them.
    """
    mark = f"--{boundary}\r\n".encode()
    pieces = [
        mark + f'Content-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    about = f'Content-Disposition: form-data; name="file"; filename="{_quoted(file_name)}"\r\n'
    pieces += [
        mark + about.encode() + b"Content-Type: application/jsonl\r\n\r\n",
        content,
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    return f'multipart/form-data; boundary="{boundary}"', b"".join(pieces)


class FormReader:
    """Reads a form of that content type; raises LLMInvalidRequestError where it is none."""

    def __init__(self, content_type: str) -> None:
        found = _BOUNDARY.search(content_type)
        if not content_type.lower().startswith("multipart/form-data") or found is None:
            raise LLMInvalidRequestError(
                f"The content type is {content_type[:100]!r}. Expected "
                "'multipart/form-data; boundary=...'.",
                status=415,
                code="unsupported_media_type",
            )
        # With the line's end before it, which belongs to the boundary and not to the data.
        self._mark = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
        self._left = bytearray(b"\r\n")
        self._state: _State = "preamble"
        self._parts = 0

    @property
    def is_complete(self) -> bool:
        """Whether the form has come to its end."""
        return self._state == "end"

    def feed(self, piece: bytes) -> list[Event]:
        """What ``piece`` brings."""
        self._left += piece
        events: list[Event] = []
        while self._step(events):
            pass
        return events

    def _step(self, events: list[Event]) -> bool:
        left = self._left
        match self._state:
            case "preamble" | "data":
                return self._to_mark(events)
            case "after":
                if len(left) < 2:
                    return False
                if left[:2] == b"--":
                    self._state = "end"
                elif left[:2] == b"\r\n":
                    self._state = "head"
                else:
                    raise _no_form("a boundary is followed by something else than a line's end")
                del left[:2]
                return True
            case "head":
                return self._head(events)
        left.clear()  # what comes after the end means nothing
        return False

    def _to_mark(self, events: list[Event]) -> bool:
        left, mark = self._left, self._mark
        at = left.find(mark)
        is_data = self._state == "data"
        # What may be the beginning of a boundary waits for its end.
        until = at if at >= 0 else max(0, len(left) - len(mark) + 1)
        if is_data and until:
            events.append(PartData(bytes(left[:until])))
        del left[: until if at < 0 else until + len(mark)]
        if at < 0:
            return False
        if is_data:
            events.append(PartEnds())
        self._state = "after"
        return True

    def _head(self, events: list[Event]) -> bool:
        left = self._left
        at = left.find(b"\r\n\r\n")
        if at > _MOST_HEAD or (at < 0 and len(left) > _MOST_HEAD):
            raise _no_form(f"a part's headers are longer than {_MOST_HEAD} bytes")
        if at < 0:
            return False
        head = left[:at].decode("utf-8", "replace")
        del left[: at + 4]
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _no_form(f"it has more than {_MOST_PARTS} parts")
        events.append(_part(head))
        self._state = "data"
        return True


def _part(head: str) -> PartBegins:
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.split("\r\n"))
    }
    found = {
        key.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        for key, quoted, plain in _PARAMETER.findall(headers.get("content-disposition", ""))
    }
    if "name" not in found:
        raise _no_form("a part has no name (Content-Disposition: form-data; name=...)")
    kind = headers.get("content-type")
    if (
        kind is not None and not kind.isprintable()
    ):  # written again, it would be a header of its own
        raise _no_form(f"a part's content type is {kind[:100]!r}")
    return PartBegins(found["name"], found.get("filename"), kind)


def _no_form(why: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"The body is no multipart form: {why}.", code="bad_form")


def _quoted(text: str) -> str:
    """As browsers write it (WHATWG's HTML, 4.10.21.8)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
