"""What tells a model's URI from its name or its path."""

from __future__ import annotations

SCHEMES = ("file", "hf", "s3", "ipfs", "pypi", "https", "http")


def is_uri(model: str) -> bool:
    """Whether ``model`` is meant as a URI rather than as a name or a path."""
    scheme, colon, _ = model.partition(":")
    return bool(colon) and scheme in SCHEMES
