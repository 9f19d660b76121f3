"""The faces that have a fast way, one row each."""

from __future__ import annotations

from types import ModuleType

from attrs import field, frozen

from headrace.wire import anthropic, anthropic_passing, openai_chat, openai_passing


@frozen(kw_only=True)
class HotFace:
    """Where requests of one format come in, and who reads them.

    ``passing`` looks at what goes through; ``codec`` translates what cannot, and says errors.
    ``id_headers`` are the names under which a caller gets the request's id.
    """

    format: str
    paths: tuple[bytes, ...]
    passing: ModuleType
    codec: ModuleType
    id_headers: tuple[bytes, ...] = (b"x-request-id",)

    _id_lines: bytes = field(init=False, repr=False)

    @_id_lines.default
    def _with_places(self) -> bytes:
        return b"".join(b"%b: %%b\r\n" % name for name in self.id_headers)

    def id_lines(self, request_id: str) -> bytes:
        """The header lines that name a request."""
        return self._id_lines % ((request_id.encode(),) * len(self.id_headers))


_ROWS = (
    HotFace(
        format="openai",
        paths=(b"/v1/chat/completions", b"/chat/completions", b"/openai/v1/chat/completions"),
        passing=openai_passing,
        codec=openai_chat,
    ),
    HotFace(
        format="anthropic",
        paths=(b"/v1/messages", b"/messages"),
        passing=anthropic_passing,
        codec=anthropic,
        id_headers=(b"x-request-id", b"request-id"),
    ),
)

FACES = {path: face for face in _ROWS for path in face.paths}
"""By path."""
