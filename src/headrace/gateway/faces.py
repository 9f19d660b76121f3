"""Whose words a caller speaks, where the path alone does not tell."""

from __future__ import annotations

from types import ModuleType

from starlette.types import Scope

from headrace.gateway.asgi import header
from headrace.wire import anthropic, openai_chat

_VERSION = b"anthropic-version"
_MESSAGES = "/messages"


def speaks_anthropic(scope: Scope) -> bool:
    """Whether a request is one of Anthropic's clients: by its path, or by the version it names."""
    path: str = scope["path"].removeprefix("/v1")
    is_messages = path == _MESSAGES or path.startswith(f"{_MESSAGES}/")
    return is_messages or header(scope, _VERSION) is not None


def codec_of(scope: Scope) -> ModuleType:
    """The wire module in whose form a request is told what went wrong."""
    return anthropic if speaks_anthropic(scope) else openai_chat
