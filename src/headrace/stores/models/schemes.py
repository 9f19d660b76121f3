"""What tells a model's URI from its name or its path."""

from __future__ import annotations

SCHEMES = ("file", "hf", "s3", "ipfs", "pypi", "https", "http")


def is_uri(model: str) -> bool:
    """Whether ``model`` is meant as a URI rather than as a name or a path."""
    scheme, colon, _ = model.partition(":")
    return bool(colon) and scheme in SCHEMES


def file_name_of(uri: str) -> str:
    """What the file of ``uri`` is called, as far as its text tells."""
    return uri.partition("#")[0].partition("?")[0].rstrip("/").rpartition("/")[2]
