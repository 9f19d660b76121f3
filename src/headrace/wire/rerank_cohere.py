"""What Cohere's own ``/v2/rerank`` takes beyond the form that others share; its answers are theirs.

https://docs.cohere.com/reference/rerank
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.contracts.ranking import RerankRequest
from headrace.wire.json import encode
from headrace.wire.rerank import OWN_FIELDS, body_of, read_error, read_response, status_of

__all__ = [
    "ALWAYS",
    "CARRIES",
    "OWN_FIELDS",
    "read_error",
    "read_response",
    "status_of",
    "write_request",
]

CARRIES = frozenset({"top_n", "max_tokens_per_document"})
"""Long documents are always cut there, and scores are always from 0 to 1."""

ALWAYS: Mapping[str, object] = {"truncate": True, "raw_scores": False}
"""What it does without being asked."""


def write_request(request: RerankRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    body = body_of(request, model)
    if request.max_tokens_per_document is not None:
        body["max_tokens_per_doc"] = request.max_tokens_per_document
    return encode(body | request.provider_options)
