"""What stands in a caller's body in Anthropic's form that our own words have no place for.

It is left out and told of; most of it is about services that only Anthropic runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TOOL = {"type", "name", "description", "input_schema", "strict", "cache_control"}
_BLOCKS = {
    "text": {"text", "cache_control"},
    "image": {"source", "cache_control"},
    "document": {"source", "cache_control", "title"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
    "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error", "cache_control"},
}
_SOURCE = {"type", "media_type", "data", "url", "file_id"}
_ASKS_NOTHING: tuple[object, ...] = (
    None,
    False,
    [],
    {},
    {"enabled": False},
    {"type": "direct"},
    ["direct"],
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_MOST = 20


def unplaced(wire: dict[str, Any]) -> tuple[str, ...]:
    """The names of those fields, such as ``tools.defer_loading``, each once."""
    if _is_plain(wire):
        return ()
    # They are written into a header: no more than some, and nothing but plain names.
    return tuple(dict.fromkeys(_walk(wire)))[:_MOST]


def _is_plain(wire: dict[str, Any]) -> bool:
    """Whether there is nothing but texts in turn, as in nearly all requests."""
    if wire.get("tools") or isinstance(wire.get("system"), list):
        return False
    for turn in wire["messages"]:
        if len(turn) != 2 or type(turn.get("content")) is not str or "role" not in turn:
            return False
    return True


def _walk(wire: dict[str, Any]) -> Iterator[str]:
    for tool in _objects(wire.get("tools")):
        yield from _beyond(tool, _TOOL, "tools")
    yield from _of_blocks(wire.get("system"), "system")
    for turn in _objects(wire.get("messages")):
        yield from _beyond(turn, {"role", "content"}, "messages")
        yield from _of_blocks(turn.get("content"), "messages.content")


def _of_blocks(blocks: object, where: str) -> Iterator[str]:
    for block in _objects(blocks):
        known = _BLOCKS.get(str(block.get("type")), set())
        yield from _beyond(block, known | {"type"}, where)
        if isinstance(block.get("source"), dict):
            yield from _beyond(block["source"], _SOURCE, f"{where}.source")
        if block.get("type") == "tool_result":
            yield from _of_blocks(block.get("content"), where)


def _beyond(wire: dict[str, Any], known: set[str], where: str) -> Iterator[str]:
    for name, value in wire.items():
        if name not in known and value not in _ASKS_NOTHING:
            yield f"{where}.{name if _PLAIN_NAME.fullmatch(name) else '?'}"


def _objects(wire: object) -> Iterator[dict[str, Any]]:
    if isinstance(wire, list):
        yield from (each for each in wire if isinstance(each, dict))
