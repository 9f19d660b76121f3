"""What a backend can do, how it is doing, and which models it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import frozen

ToolCallingMode: TypeAlias = Literal["native", "best_effort", "none"]
Serves: TypeAlias = Literal["chat", "embeddings", "transcription"]
JSONMode: TypeAlias = Literal["native", "prompt+validate", "none"]


@frozen(kw_only=True)
class BackendCapabilities:
    """What a backend's model can be asked for; ``max_context_tokens`` is ``None`` if unknown.

    Where ``known`` is false the model is one that we know nothing of: what is said here is a guess,
    and nothing should be refused on its account.
    """

    streaming: bool
    tool_calling: ToolCallingMode
    json_mode: JSONMode
    vision: bool
    max_context_tokens: int | None
    audio: bool = False
    reasoning: bool = False
    logprobs: bool = False
    embeddings: bool = False
    known: bool = True


@frozen(kw_only=True)
class BackendStatus:
    """What a health check found; ``checked_at`` is UTC in ISO 8601."""

    ok: bool
    message: str | None = None
    details: Mapping[str, object] | None = None
    checked_at: str | None = None


@frozen(kw_only=True)
class ModelInfo:
    """A model as a backend lists it; ``created`` is in Unix seconds, ``serves`` what it is there for."""

    model_id: str
    created: int = 0
    owned_by: str = "headrace"
    max_context_tokens: int | None = None
    serves: Serves = "chat"
