"""The three APIs by which batches are made, as a table."""

from __future__ import annotations

from types import ModuleType

from attrs import frozen

from headrace.contracts.errors import LLMError
from headrace.stores.batches.shelf import Face
from headrace.wire import (
    anthropic,
    anthropic_batches,
    mistral_batches,
    openai_batches,
    openai_chat,
)


@frozen(kw_only=True)
class FaceRow:
    """One API: the codec of its batches, the one of its errors, and how its batches' ids begin.

    ``names_files``: results lie in files that callers fetch, those with answers apart from those
    without. ``has_method``: its lines say where they would be sent.
    """

    face: Face
    codec: ModuleType
    errors: ModuleType
    prefix: str
    names_files: bool = True

    def error_body(self, error: LLMError) -> bytes:
        """``error`` as a body."""
        body: bytes = self.errors.write_error(error)
        return body


FACES: dict[Face, FaceRow] = {
    "openai": FaceRow(face="openai", codec=openai_batches, errors=openai_chat, prefix="batch_"),
    "anthropic": FaceRow(
        face="anthropic",
        codec=anthropic_batches,
        errors=anthropic,
        prefix="msgbatch_",
        names_files=False,
    ),
    "mistral": FaceRow(face="mistral", codec=mistral_batches, errors=openai_chat, prefix="job_"),
}
