"""A JSON Schema as the grammar that the engine is handed, tried out in our own process first.

llguidance is in the engine too, where it says nothing of a schema that it cannot take: the answer
is then simply free. So it is asked here, with tighter limits than the engine's, and what it
refuses never gets there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from threading import Lock
from typing import Any

from attrs import evolve, frozen

from headrace.backends.local.schemas.bounds import Bounds
from headrace.backends.local.schemas.narrow import narrowed
from headrace.backends.local.schemas.words import Unheld
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire import json as wire_json

MOST_SCHEMA_BYTES = 256 * 1024
_MOST_KEPT = 256
_HEAD = "%llguidance {}\n"
_OPTIONS = {"whitespace_flexible": False}
# At most half of what llguidance allows itself in the engine, which generates for everyone meanwhile.
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 500_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}
_MOST_REASON = 300


@frozen(kw_only=True)
class Grammar:
    """A grammar in llguidance's form of Lark, and the schema that it was made of."""

    text: str
    schema: dict[str, Any]


@frozen(kw_only=True)
class Part:
    """A schema of the caller's, and the field of the request that it stands in."""

    schema: Any
    param: str


class Grammars:
    """Makes grammars, and keeps the latest ones by the hash of what they were made of.

    Safe to use from several threads: compiling takes about a millisecond, and does not belong on
    an event loop where a schema is large.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Grammar | LLMInvalidRequestError] = OrderedDict()
        self._lock = Lock()

    def grammar(self, part: Part, bounds: Bounds) -> Grammar:
        """The grammar that holds an answer to ``part``, or LLMInvalidRequestError saying why not."""
        return self._kept_or_made(part, (), bounds, 0)

    def calls(self, parts: Sequence[tuple[str, Part]], bounds: Bounds, *, most: int) -> Grammar:
        """The grammar of a call of one of the named ``parts``, or of an array of up to ``most``."""
        whole = Part(schema=[[name, part.schema] for name, part in parts], param="tools")
        return self._kept_or_made(whole, parts, bounds, most)

    def _kept_or_made(
        self, part: Part, calls: Sequence[tuple[str, Part]], bounds: Bounds, most: int
    ) -> Grammar:
        said = wire_json.encode(part.schema)
        if len(said) > MOST_SCHEMA_BYTES:
            raise LLMInvalidRequestError(
                f"the schema has {len(said)} bytes, more than the {MOST_SCHEMA_BYTES} that this "
                "engine takes; send a smaller one",
                param=part.param,
            )
        key = sha256(f"{most} {part.param} {bounds} ".encode() + said).digest()
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None:
            try:
                made = _made_of_calls(calls, bounds, most) if most else _made(part, bounds)
                found = made
            except LLMInvalidRequestError as refusal:
                found = refusal
            with self._lock:
                self._kept[key] = found
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        if isinstance(found, LLMInvalidRequestError):
            raise LLMInvalidRequestError(found.message, param=found.param, code=found.code)
        return found


def why_not(text: str) -> str | None:
    """What llguidance has against the grammar ``text``, or ``None``."""
    from llguidance import LLMatcher, LLParserLimits

    said: str = LLMatcher.validate_grammar(
        LLMatcher.grammar_from_lark(text), limits=LLParserLimits(**_LIMITS)
    )
    return None if not said or said.startswith("WARNING") else said


def text_of(schema: dict[str, Any]) -> str:
    """The grammar of JSON that meets ``schema``, without any room between its parts."""
    said = wire_json.encode({**schema, "x-guidance": _OPTIONS}).decode()
    return f"{_HEAD}start: %json {said}"


def _made(part: Part, bounds: Bounds) -> Grammar:
    reason = ""
    for each in _ever_looser(bounds):
        schema = _narrow(part, each)
        text = text_of(schema)
        complaint = why_not(text)
        if complaint is None:
            return Grammar(text=text, schema=schema)
        reason = reason or complaint
        reason = complaint if each is None else reason
    raise _refusal(part.param, _shortened(reason))


def _made_of_calls(parts: Sequence[tuple[str, Part]], bounds: Bounds, most: int) -> Grammar:
    for each in _ever_looser(bounds):
        shared: dict[str, Any] = {}
        calls = []
        for place, (name, part) in enumerate(parts):
            key = f"tool_{place}"
            shared[key] = _moved(_narrow(part, each), f"#/$defs/{key}")
            calls.append(
                {
                    "type": "object",
                    "properties": {
                        "name": {"const": name},
                        "arguments": {"$ref": f"#/$defs/{key}"},
                    },
                    "required": ["name", "arguments"],
                    "additionalProperties": False,
                }
            )
        one: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
        schema = (
            {"type": "array", "items": one, "minItems": 1, "maxItems": most} if most > 1 else one
        )
        schema = {**schema, "$defs": shared}
        text = text_of(schema)
        if why_not(text) is None:
            return Grammar(text=text, schema=schema)
    for _, part in parts:
        _made(part, bounds)  # says which of them it is
    raise _refusal("tools", "the tools together are too much for one grammar; offer fewer")


def _ever_looser(bounds: Bounds) -> list[Bounds | None]:
    """A bound of ours may contradict what the caller asks for; then it has to go."""
    return [bounds, evolve(bounds, patterns=False), None]


def _narrow(part: Part, bounds: Bounds | None) -> dict[str, Any]:
    try:
        return narrowed(part.schema, bounds)
    except Unheld as unheld:
        raise LLMInvalidRequestError(str(unheld), param=part.param, code="unsupported") from unheld


def _moved(schema: Any, to: str) -> Any:
    """``schema`` with its inner references as they are where it lies at ``to``."""
    if isinstance(schema, list):
        return [_moved(each, to) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#"):
            made[key] = to + value[1:]
        elif key in ("$schema", "$id", "id") and isinstance(value, str):
            continue
        else:
            made[key] = value if key in ("enum", "const") else _moved(value, to)
    return made


def _shortened(complaint: str) -> str:
    """What was said, without the grammar that it quotes and its place there."""
    kept = [line for line in complaint.splitlines() if "|" not in line[:8] and line.strip()]
    said = "; ".join(kept).partition("failed to compile JSON schema: ")
    return (said[2] or said[0])[:_MOST_REASON]


def _refusal(param: str, reason: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"this schema cannot be held by a grammar: {reason}", param=param, code="unsupported"
    )
