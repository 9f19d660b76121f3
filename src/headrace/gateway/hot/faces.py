"""The faces that have a fast way, one row each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType

from attrs import evolve, field, frozen

from headrace.gateway import responses
from headrace.gateway.gemini import of_model
from headrace.gateway.hot.words import GeminiWords, OllamaWords, ResponsesWords, Words
from headrace.gateway.ollama import asks_something
from headrace.wire import (
    anthropic,
    anthropic_passing,
    gemini,
    ollama,
    ollama_generate,
    openai_chat,
    openai_completions,
    openai_passing,
    openai_responses,
)
from headrace.wire.inbound import Inbound
from headrace.wire.sse import STREAM_TYPE as SSE

_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
)


def _any(_: Inbound) -> bool:
    return True


@frozen(kw_only=True)
class HotFace:
    """Where requests of one format come in, and who reads them.

    ``codec`` reads requests and writes answers, and ``errors`` says what went wrong. Where ``passing`` is there it looks
    at what goes through to a backend of the same format. ``id_headers`` are the names under which a
    caller gets the request's id, ``key_headers`` those under which it may show its key besides the
    bearer's. ``takes`` says whether a request may go the fast way at all, ``words`` write its answer.
    Where the model stands in the address, ``paths`` are empty and ``pattern`` has it as its group;
    ``streams`` says then whether a stream is asked for there.
    """

    format: str
    paths: tuple[bytes, ...] = ()
    codec: ModuleType
    passing: ModuleType | None = None
    errors: ModuleType = field()
    id_headers: tuple[bytes, ...] = (b"x-request-id",)
    takes: Callable[[Inbound], bool] = _any
    key_headers: tuple[bytes, ...] = (b"x-api-key",)
    words: type[Words] = Words
    pattern: re.Pattern[bytes] | None = None
    streams: bool = False

    @errors.default
    def _its_own(self) -> ModuleType:
        return self.codec

    stream_head: bytes = field(init=False, repr=False)
    """What a streamed answer begins with, up to its own headers."""
    _id_lines: bytes = field(init=False, repr=False)

    @stream_head.default
    def _with_its_type(self) -> bytes:
        kind: str = self.codec.STREAM_TYPE
        return _STREAM % (f"{kind}; charset=utf-8" if kind == SSE else kind).encode()

    @_id_lines.default
    def _with_places(self) -> bytes:
        return b"".join(b"%b: %%b\r\n" % name for name in self.id_headers)

    def read(self, body: bytes, model: str | None) -> Inbound:
        """The request in ``body``; ``model`` is what the address has."""
        inbound: Inbound = self.codec.read_request(body)
        if model is None:
            return inbound
        return evolve(inbound, request=of_model(inbound.request, model), stream=self.streams)

    def key_in(self, fields: Mapping[bytes, bytes]) -> bytes | None:
        """The key in one of this face's own places."""
        for name in self.key_headers:
            if name in fields:
                return fields[name]
        return None

    def id_lines(self, request_id: str) -> bytes:
        """The header lines that name a request."""
        return self._id_lines % ((request_id.encode(),) * len(self.id_headers))


_GEMINI_KEYS = (b"x-goog-api-key", b"x-api-key")
_ROWS = (
    HotFace(
        format="openai",
        paths=(b"/v1/chat/completions", b"/chat/completions", b"/openai/v1/chat/completions"),
        codec=openai_chat,
        passing=openai_passing,
    ),
    HotFace(
        format="anthropic",
        paths=(b"/v1/messages", b"/messages"),
        codec=anthropic,
        passing=anthropic_passing,
        id_headers=(b"x-request-id", b"request-id"),
    ),
    HotFace(
        format="openai",
        paths=(b"/v1/completions", b"/completions"),
        codec=openai_completions,
    ),
    HotFace(
        format="openai-responses",
        paths=(b"/v1/responses", b"/responses"),
        codec=openai_responses,
        errors=openai_chat,
        takes=responses.stands_alone,
        words=ResponsesWords,
    ),
    HotFace(
        format="ollama",
        paths=(b"/api/chat",),
        codec=ollama,
        takes=asks_something,
        words=OllamaWords,
    ),
    HotFace(
        format="ollama",
        paths=(b"/api/generate",),
        codec=ollama_generate,
        errors=ollama,
        takes=asks_something,
        words=OllamaWords,
    ),
    HotFace(
        format="gemini",
        pattern=re.compile(rb"/v1(?:beta)?/models/([^?%#]+):generateContent"),
        codec=gemini,
        key_headers=_GEMINI_KEYS,
        words=GeminiWords,
    ),
    HotFace(
        format="gemini",
        pattern=re.compile(rb"/v1(?:beta)?/models/([^?%#]+):streamGenerateContent\?alt=sse"),
        codec=gemini,
        key_headers=_GEMINI_KEYS,
        words=GeminiWords,
        streams=True,
    ),
)

_BY_PATH = {path: face for face in _ROWS for path in face.paths}
_BY_PATTERN = tuple((face.pattern, face) for face in _ROWS if face.pattern is not None)


def face_at(url: bytes) -> tuple[HotFace, str | None] | None:
    """The face that is asked at ``url``, and the model that stands there."""
    face = _BY_PATH.get(url)
    if face is not None:
        return face, None
    for pattern, face in _BY_PATTERN:
        found = pattern.fullmatch(url)
        if found is not None:
            return face, found[1].decode("latin-1")
    return None
