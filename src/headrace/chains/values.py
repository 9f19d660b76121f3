"""What flows along a chain: values that are JSON, each with the row that it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from attrs import frozen
from msgspec import json, to_builtins

_encode = json.Encoder(order="deterministic").encode
_KEY_BYTES = 16


def as_json(value: object) -> bytes:
    """``value`` as JSON, always the same bytes for the same value."""
    return _encode(value)


def plain(value: object) -> Any:
    """``value`` as JSON can say it; TypeError where it cannot."""
    return to_builtins(value, enc_hook=_dumped)


def _dumped(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # Pydantic's
    if dump is None:
        raise TypeError(f"a {type(value).__name__} cannot be said in JSON")
    return dump(mode="json")


def key_of(*parts: bytes) -> bytes:
    """One key for ``parts``: where they are cut counts."""
    whole = blake2b(digest_size=_KEY_BYTES)
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.digest()


@frozen
class Item:
    """One value on its way.

    ``row`` is the input row as it was read and ``number`` its place in the input, ``path`` which of
    the several that steps made of it this is. ``given`` has what each earlier step gave, by id.
    """

    number: int
    row: Mapping[str, Any]
    path: tuple[int, ...]
    value: Any
    given: Mapping[str, Any]

    def then(self, node: str, value: Any, part: int | None = None) -> Item:
        """What ``node`` made of it; ``part`` where it made several."""
        path = self.path if part is None else (*self.path, part)
        return Item(self.number, self.row, path, value, {**self.given, node: value})

    def seen(self) -> dict[str, Any]:
        """What a template sees."""
        own = self.value if isinstance(self.value, Mapping) else {"value": self.value}
        return {**self.given, "row": self.row, **own}
