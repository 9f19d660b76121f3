"""What is said: messages, the parts of their content, tools and tool calls."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.quick import quick_init

LLMRole: TypeAlias = Literal["system", "user", "assistant", "tool"]
ImageDetail: TypeAlias = Literal["auto", "low", "high"]
CacheFor: TypeAlias = Literal["5m", "1h"]
"""How long a provider is asked to keep the prompt up to here, where it sells that (Anthropic)."""


@frozen(kw_only=True)
class TextPart:
    """Plain text inside a multi-part message."""

    text: str
    cache: CacheFor | None = None


@frozen(kw_only=True)
class ImagePart:
    """An image, by its bytes or by URL; exactly one of ``data`` and ``url`` is set."""

    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
    media_type: str | None = None
    detail: ImageDetail | None = None
    cache: CacheFor | None = None


@frozen(kw_only=True)
class AudioPart:
    """A piece of recorded sound; ``format`` is the container's short name (``wav``, ``mp3``)."""

    data: bytes = field(repr=False)
    format: str


@frozen(kw_only=True)
class FilePart:
    """A document, by its bytes, by URL or by the id that the provider gave it at upload."""

    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    media_type: str | None = None
    cache: CacheFor | None = None


@frozen(kw_only=True)
class ReasoningPart:
    """A piece of a model's reasoning, as its provider wants it back in the next turn.

    ``text`` is the reasoning or a summary of it, ``signature`` the provider's seal over it, and
    ``encrypted`` what only the provider can read; ``part_id`` is the provider's name for the piece.
    """

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    part_id: str | None = None


ContentPart: TypeAlias = TextPart | ImagePart | AudioPart | FilePart


@frozen(kw_only=True)
class ToolSpec:
    """A tool the model may call; ``input_schema`` is a JSON Schema of its arguments.

    ``strict`` asks the provider to hold the arguments to the schema; ``None`` leaves its default.
    """

    name: str
    description: str = ""
    input_schema: dict[str, object] = field(factory=dict)
    strict: bool | None = None
    cache: CacheFor | None = None


@frozen(kw_only=True)
class ToolCall:
    """A call that the model asks for; ``arguments_json`` is the argument object as JSON text."""

    name: str
    arguments_json: str
    call_id: str


@frozen(kw_only=True)
class LLMToolResult:
    """What a tool answered, to be handed back to the model; ``error`` is set when it failed."""

    call_id: str
    output_json: str
    error: str | None = None


@quick_init
@frozen(kw_only=True)
class LLMMessage:
    """One turn of a conversation.

    ``content`` is text, or a tuple of parts when images, audio or files come with it.
    An assistant turn may carry ``tool_calls``, ``reasoning`` and a ``refusal``; a tool turn names
    the call it answers in ``tool_call_id``, and ``tool_error`` marks a result that is a failure.
    ``reasoning_parts`` are the same reasoning in the provider's own pieces, where it has such.
    """

    role: LLMRole
    content: str | tuple[ContentPart, ...]
    name: str | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    tool_error: bool | None = None
    reasoning_parts: tuple[ReasoningPart, ...] = ()
