"""The names of Gemini's fields: they may be written as JSON has them or as the protocol buffers do.

https://protobuf.dev/programming-guides/json/: ``maxOutputTokens`` and ``max_output_tokens`` are one
field. What users name themselves (arguments, properties of a schema) is none of ours to rename.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from headrace.wire.openai_fields import array, mapping, refuse

T = TypeVar("T")


def camel(name: str) -> str:
    """``name`` as JSON has it."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def renamed(value: Any, path: str, known: Collection[str]) -> dict[str, Any]:
    """The object at ``path`` with those of its fields that are ``known`` under their JSON names."""
    wire = mapping(value, path)
    if not any("_" in name for name in wire):
        return wire
    found: dict[str, Any] = {}
    for name, each in wire.items():
        as_json = camel(name)
        ours = as_json if as_json in known else name
        if ours in found:
            refuse(f"{path}.{ours}" if path else ours, each, f"'{ours}' once, in one spelling")
        found[ours] = each
    return found


def each_of(value: Any, path: str, read: Callable[[Any, str], T]) -> list[T]:
    """What ``read`` makes of each entry of the list at ``path``; one object alone is a list of it."""
    if type(value) is dict:
        return [read(value, path)]
    return [read(each, f"{path}[{i}]") for i, each in enumerate(array(value, path))]
