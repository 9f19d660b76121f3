"""What kind of image bytes are, by how they begin."""

from __future__ import annotations

_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def image_type(data: bytes) -> str | None:
    """The media type of the image in ``data``; ``None`` where it begins like none that we know."""
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
