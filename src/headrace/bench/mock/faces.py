"""The generating faces as ready bytes: what is sent at each token, rendered ahead by the codecs.

A rendered answer has ``ANSWER_ID`` where an answer's own id belongs, which is as long. Each piece
of a stream is one chunk of HTTP's chunked coding, so that serving it is one write.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any, Literal

from attrs import frozen

from headrace.contracts.responses import FinishReason, LLMDelta, LLMResponse, Usage
from headrace.wire import anthropic, openai_chat, openai_completions, openai_responses

ANSWER_ID = b"0mock0mock0mock0"
"""Stands for an answer's id; ids are as long, so that lengths hold."""
CREATED = 1767225600
"""When every answer says that it was made: 2026-01-01, so that equal requests get equal bytes."""
LAST_CHUNK = b"0\r\n\r\n"

Words = tuple[str, ...]

_WORDS = (
    *("the", "water", "runs", "down", "a", "narrow", "race", "to", "turn", "an", "old", "wheel"),
    *("and", "grain", "becomes", "flour", "while", "gears", "of", "oak", "keep", "time", "with"),
    *("rain", "that", "fell", "on", "far", "hills", "before"),
)
_CYCLE = 8 * len(_WORDS)
"""So many pieces a format has whose pieces do not say their place."""
_AHEAD = 64


@frozen(kw_only=True)
class Face:
    """One way to ask for text: its codec, and whose limit and whose prompt it reads."""

    name: Literal["chat", "completions", "responses", "messages"]
    codec: ModuleType
    prompt: str
    numbered: bool = False
    """Whether each piece of a stream says which one it is."""


CHAT = Face(name="chat", codec=openai_chat, prompt="messages")
COMPLETIONS = Face(name="completions", codec=openai_completions, prompt="prompt")
RESPONSES = Face(name="responses", codec=openai_responses, prompt="input", numbered=True)
MESSAGES = Face(name="messages", codec=anthropic, prompt="messages")


def word(index: int, words: Words = ()) -> str:
    """The text of token ``index`` of every answer, or of one that has ``words`` of its own."""
    if words:
        return words[index % len(words)]
    text = _WORDS[index % len(_WORDS)]
    return text if index == 0 else f" {text}"


def text_of(tokens: int, words: Words = ()) -> str:
    """An answer of that many tokens."""
    return "".join(word(index, words) for index in range(tokens))


def chunk(data: bytes) -> bytes:
    """``data`` as a chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Pieces:
    """The pieces of a stream of one face and model, each made before it is first due."""

    def __init__(self, face: Face, model: str, include_usage: bool, words: Words = ()) -> None:
        self._numbered = face.numbered
        self._words = words
        self._cycle = len(words) or _CYCLE
        self._writer = _writer(face, model, include_usage)
        self._writer.write(LLMDelta(text_delta=word(0, words)))
        # The first token stands in the opening; what is here in its place begins the next round.
        self._made = [b"" if face.numbered else self._make(self._cycle)]
        self.at(_AHEAD if face.numbered else self._cycle - 1)

    def at(self, index: int) -> bytes:
        """What is sent for token ``index``, which is not the first."""
        made = self._made
        if not self._numbered:
            index %= self._cycle
        if index >= len(made):
            made += map(self._make, range(len(made), index + _AHEAD))
        return made[index]

    def _make(self, index: int) -> bytes:
        return chunk(self._writer.write(LLMDelta(text_delta=word(index, self._words))))


@lru_cache(maxsize=64)
def pieces(face: Face, model: str, include_usage: bool, words: Words = ()) -> Pieces:
    """The pieces of a stream between its opening and its ending."""
    return Pieces(face, model, include_usage, words)


@lru_cache(maxsize=1024)
def opening(
    face: Face, model: str, include_usage: bool, prompt_tokens: int, words: Words = ()
) -> bytes:
    """What a stream begins with: all up to and with its first token."""
    writer = _writer(face, model, include_usage)
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=0)
    said = writer.write(LLMDelta(usage_delta=usage))
    return chunk(said + writer.write(LLMDelta(text_delta=word(0, words))))


@lru_cache(maxsize=1024)
def ending(
    face: Face,
    model: str,
    include_usage: bool,
    prompt_tokens: int,
    tokens: int,
    reason: FinishReason,
    words: Words = (),
) -> bytes:
    """What a stream of so many tokens ends with, after its last token."""
    writer = _writer(face, model, include_usage)
    for n in range(tokens if face.numbered else 1):
        writer.write(LLMDelta(text_delta=word(n, words)))
    usage = None if prompt_tokens < 0 else _usage(prompt_tokens, tokens)
    said = writer.write(LLMDelta(finish_reason=reason, usage_delta=usage))
    return chunk(said) + chunk(writer.finish()) + LAST_CHUNK


@lru_cache(maxsize=1024)
def whole(
    face: Face,
    model: str,
    prompt_tokens: int,
    tokens: int,
    reason: FinishReason,
    words: Words = (),
) -> bytes:
    """The body of a whole answer of so many tokens."""
    body: bytes = face.codec.write_response(
        LLMResponse(
            text=text_of(tokens, words),
            finish_reason=reason,
            usage=None if prompt_tokens < 0 else _usage(prompt_tokens, tokens),
        ),
        response_id=_answer_id(face),
        model=model,
        created=CREATED,
    )
    return body


def _writer(face: Face, model: str, include_usage: bool) -> Any:
    return face.codec.stream_writer(
        response_id=_answer_id(face), model=model, created=CREATED, include_usage=include_usage
    )


def _answer_id(face: Face) -> str:
    said: str = face.codec.answer_id(None, ANSWER_ID.decode())
    return said


def _usage(prompt_tokens: int, tokens: int) -> Usage:
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=tokens,
        total_tokens=prompt_tokens + tokens,
    )
