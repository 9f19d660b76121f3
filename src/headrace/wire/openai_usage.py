"""What an answer that goes by unread tells of its usage, in any of the forms that OpenAI's API has."""

from __future__ import annotations

from typing import Any

from headrace.contracts.errors import LLMError
from headrace.contracts.responses import Usage
from headrace.wire import json as wire_json
from headrace.wire.sse import STREAM_TYPE, Reader

_MOST_JSON = 1 << 20
_WORD = b'"usage"'


class UsageWatch:
    """Looks at an answer of that content type while it goes by; ``usage`` is what it told.

    What is neither JSON nor events is not looked at, nor JSON of more than a megabyte.
    """

    def __init__(self, content_type: str) -> None:
        self._is_json = content_type.startswith("application/json")
        self._events = Reader() if content_type.startswith(STREAM_TYPE) else None
        self._gathered = bytearray()
        self._told: Usage | None = None

    def feed(self, piece: bytes) -> None:
        """The next piece goes by."""
        if self._events is not None:
            try:
                events = self._events.feed(piece)
            except LLMError:  # it is no business of ours that they are none
                self._events = None
                return
            for event in events:
                if _WORD in event.data:
                    self._told = _usage_in(event.data) or self._told
        elif self._is_json:
            self._gathered += piece
            if len(self._gathered) > _MOST_JSON:
                self._is_json = False
                self._gathered.clear()

    @property
    def usage(self) -> Usage | None:
        """What was told so far; ``None`` where that is nothing."""
        if self._is_json and _WORD in self._gathered:
            return _usage_in(bytes(self._gathered))
        return self._told


def _usage_in(body: bytes) -> Usage | None:
    try:
        answer = wire_json.decode_reply(body)
    except LLMError:
        return None
    if not isinstance(answer, dict):
        return None
    found = answer.get("usage")
    if found is None and isinstance(answer.get("response"), dict):
        found = answer["response"].get("usage")
    return usage_from_either(found)


def usage_from_either(wire: Any) -> Usage | None:
    """Token counts under the names of chat completions or under those of the newer endpoints."""
    if not isinstance(wire, dict):
        return None
    prompt = _count(wire, "prompt_tokens", "input_tokens")
    output = _count(wire, "completion_tokens", "output_tokens")
    total = _count(wire, "total_tokens")
    if prompt is None and output is None and total is None:
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=output, total_tokens=total)


def _count(wire: dict[str, Any], *names: str) -> int | None:
    found = (wire.get(name) for name in names)
    return next((value for value in found if type(value) is int and value >= 0), None)
