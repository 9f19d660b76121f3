"""What a route may look at in a request, to choose who answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from headrace.contracts.messages import LLMMessage, TextPart
from headrace.contracts.requests import EmbeddingRequest, LLMRequest, TaskProfile

# Most text has four bytes to a token; a limit should hold for text that has fewer.
_TOKEN_BYTES = 3
_MESSAGE_TOKENS = 8
# A large picture at the usual providers; what a file or a sound takes nobody can tell from here.
_PART_TOKENS = 1500


class Asking(Protocol):
    """A request that comes, as far as it matters for the choice.

    ``model`` is the name for backends that have none of their own for it; ``profile`` what the
    caller wants of the choice.
    """

    @property
    def model(self) -> str | None: ...

    @property
    def profile(self) -> TaskProfile | None: ...

    def prompt_tokens(self) -> int:
        """About how long the prompt is; rather too many than too few."""

    def answer_tokens(self, unbounded: int) -> int:
        """The most tokens that its answers may have together; ``unbounded`` of each where it does
        not say."""

    def session(self, names: Sequence[str]) -> str | None:
        """To which session it belongs: the first of ``names`` that it has."""

    def head(self, most_bytes: int) -> bytes:
        """So much of its prompt, but nothing behind the first turn of the user: the part that the
        later requests of a conversation, and others of the same kind, have in common with it."""


@frozen(kw_only=True)
class AsRequest:
    """An Asking of a request that was read: ``request``, or several ``prompts`` of the same kind.

    ``headers`` are its own, where it came by HTTP, by lower-case names.
    """

    request: LLMRequest
    model: str | None
    prompts: Sequence[str | tuple[int, ...]] = ()
    headers: Mapping[str, str] = {}

    @property
    def profile(self) -> TaskProfile | None:
        return self.request.task_profile

    def prompt_tokens(self) -> int:
        request = self.request
        if self.prompts:
            return sum(map(text_tokens, self.prompts))
        if request.prompt is not None:
            return text_tokens(request.prompt)
        tools = sum(
            text_tokens(tool.description) + text_tokens(repr(tool.input_schema))
            for tool in request.tools
        )
        return tools + sum(map(_message_tokens, request.messages))

    def answer_tokens(self, unbounded: int) -> int:
        request = self.request
        most = unbounded if request.max_tokens is None else request.max_tokens
        return most * (request.n or 1) * max(1, len(self.prompts))

    def session(self, names: Sequence[str]) -> str | None:
        for name in names:
            found = self._named(name)
            if isinstance(found, str) and found:
                return found
        return None

    def _named(self, name: str) -> object:
        request = self.request
        if name == "user":
            return request.user
        if name.startswith("metadata."):
            key = name.removeprefix("metadata.")
            told = request.provider_options.get("metadata")
            given = told.get(key) if isinstance(told, Mapping) else None
            return request.metadata.get(key) if given is None else given
        return self.headers.get(name) or request.provider_options.get(name)

    def head(self, most_bytes: int) -> bytes:
        prompt = self.prompts[0] if self.prompts else self.request.prompt
        if prompt is not None:
            # Each character or token takes a byte or more.
            start = prompt[:most_bytes]
            text = start if isinstance(start, str) else " ".join(map(str, start))
            return text.encode("utf-8", "replace")[:most_bytes]
        head = b""
        for message in self.request.messages:
            head += text_of(message)[:most_bytes].encode("utf-8", "replace") + b"\0"
            if message.role == "user" or len(head) >= most_bytes:
                break
        return head[:most_bytes]


@frozen(kw_only=True)
class AsEmbedding:
    """An Asking of a request for vectors, which has no answer in tokens."""

    request: EmbeddingRequest
    model: str | None
    profile: TaskProfile | None = None

    def prompt_tokens(self) -> int:
        return sum(map(text_tokens, self.request.inputs))

    def answer_tokens(self, unbounded: int) -> int:
        return 0

    def session(self, names: Sequence[str]) -> str | None:
        return self.request.user if "user" in names else None

    def head(self, most_bytes: int) -> bytes:
        # No engine keeps anything of a text that it makes a vector of.
        return b""


@frozen(kw_only=True)
class AsTexts:
    """An Asking of a request that takes texts and has no answer in tokens: a ranking, or classes."""

    texts: Sequence[str]
    model: str | None
    profile: TaskProfile | None = None

    def prompt_tokens(self) -> int:
        return sum(map(text_tokens, self.texts))

    def answer_tokens(self, unbounded: int) -> int:
        return 0

    def session(self, names: Sequence[str]) -> str | None:
        return None

    def head(self, most_bytes: int) -> bytes:
        # As with vectors.
        return b""


def text_tokens(text: str | Sequence[int]) -> int:
    """About how many tokens ``text`` has, or exactly, where they are told."""
    return (
        -(-len(text.encode("utf-8", "replace")) // _TOKEN_BYTES)
        if isinstance(text, str)
        else len(text)
    )


def body_tokens(body: bytes) -> int:
    """The same of a request that was not looked into."""
    return -(-len(body) // _TOKEN_BYTES)


def text_of(message: LLMMessage) -> str:
    """All text in ``message``."""
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in message.content if isinstance(part, TextPart))


def _message_tokens(message: LLMMessage) -> int:
    tokens = _MESSAGE_TOKENS + text_tokens(text_of(message))
    if not isinstance(message.content, str):
        tokens += _PART_TOKENS * sum(not isinstance(part, TextPart) for part in message.content)
    for call in message.tool_calls:
        tokens += _MESSAGE_TOKENS + text_tokens(call.name) + text_tokens(call.arguments_json)
    return tokens
