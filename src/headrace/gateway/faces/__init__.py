"""Whose words a caller speaks, and what answers there."""

from __future__ import annotations

from starlette.types import Scope

from headrace.gateway.asgi import header
from headrace.gateway.faces import endpoints
from headrace.gateway.faces.face import Face
from headrace.gateway.faces.gemini import GEMINI
from headrace.gateway.faces.kserve import KSERVE
from headrace.gateway.faces.ollama import OLLAMA
from headrace.gateway.faces.tei import RANKING, TEI
from headrace.gateway.faces.tgi import TGI
from headrace.wire import anthropic, openai_chat

__all__ = ["ANTHROPIC", "FACES", "OPENAI", "Face", "face_of", "speaks_anthropic"]

_VERSION = b"anthropic-version"
_MESSAGES = "/messages"

OPENAI = Face(name="openai", codec=openai_chat)
ANTHROPIC = Face(name="anthropic", codec=anthropic, id_headers=(b"x-request-id", b"request-id"))

FACES: tuple[Face, ...] = (endpoints.FACE, GEMINI, OLLAMA, TGI, TEI, RANKING, KSERVE)
"""Those whose paths tell that they are meant. OpenAI's and Anthropic's share theirs.

Who decides by itself who may ask comes first: no ending that another face goes by is to take its
paths away from it."""


def speaks_anthropic(scope: Scope) -> bool:
    """Whether a request is one of Anthropic's clients: by its path, or by the version it names."""
    path: str = scope["path"].removeprefix("/v1")
    is_messages = path == _MESSAGES or path.startswith(f"{_MESSAGES}/")
    return is_messages or header(scope, _VERSION) is not None


def face_of(scope: Scope) -> Face:
    """The face whose form a request is answered in."""
    path: str = scope["path"]
    for face in FACES:
        if face.owns(path):
            return face
    return ANTHROPIC if speaks_anthropic(scope) else OPENAI
