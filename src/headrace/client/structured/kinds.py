"""What an answer may be asked for as: a class, any type that can be described, or a raw schema.

Pydantic is loaded only for a type that is Pydantic's, which has loaded it already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import is_
from typing import Any, Generic, TypeVar, get_args

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError, OutputProblem
from headrace.wire.json import decode_reply, encode
from headrace.wire.openai_strict import without_absent
from headrace.wire.schema_problems import checker, path_of

T = TypeVar("T")

_WRAP = "answer"
_INTO_ROOT = re.compile(r"#(?!/(\$defs|definitions)/)")
_MOST_PROBLEMS = 10


class Unfit(Exception):
    """A value is not what was asked for; ``problems`` say where and why."""

    def __init__(self, problems: tuple[OutputProblem, ...]) -> None:
        super().__init__("; ".join(f"{each.path}: {each.message}" for each in problems))
        self.problems = problems


@frozen
class OutputKind(Generic[T]):
    """What is asked for: its JSON Schema, always of an object, and how a value of it is read.

    ``own_schema`` is the type's own. Where that is not an object's, as of a list or a union, it is
    asked for as the one property of an object (``wrapped``).
    """

    schema: dict[str, Any]
    own_schema: Mapping[str, Any]
    wrapped: bool
    build: Callable[[Any], T]

    def read(self, value: Any) -> T:
        """The object that a whole answer's JSON ``value`` says; raises Unfit."""
        return self.build(self.view(value))

    def view(self, value: Any) -> Any:
        """``value`` without its wrapping and the nulls that say that something was left out."""
        if self.wrapped:
            if not isinstance(value, dict) or _WRAP not in value:
                raise Unfit((OutputProblem(path="$", message=f"must be an object with {_WRAP!r}"),))
            value = value[_WRAP]
        return without_absent(value, self.own_schema)

    def is_bare(self, value: Any) -> bool:
        """Whether ``value`` came without the wrapping that was asked for."""
        return self.wrapped and not (isinstance(value, dict) and _WRAP in value)

    def wrap(self, value: Any) -> dict[str, Any]:
        """``value`` in its wrapping."""
        return {_WRAP: value}


def kind_of(output: Any) -> OutputKind[Any]:
    """``output`` as something that can be asked for.

    Raises LLMInvalidRequestError for what is no type, cannot be described as a JSON Schema, or is
    no JSON Schema itself.
    """
    if isinstance(output, Mapping):
        try:
            written = encode(output)
        except LLMInvalidRequestError:
            return _described(dict(output), _checked_by(dict(output)))
        return _of_schema(written)
    try:
        return _of_type(output)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        raise LLMInvalidRequestError(
            f"output is a {type(output).__name__}, must be a type or a JSON Schema (a dict)",
            param="output",
        ) from error


@lru_cache(maxsize=128)
def _of_schema(written: bytes) -> OutputKind[Any]:
    schema: dict[str, Any] = decode_reply(written)
    return _described(schema, _checked_by(schema))


@lru_cache(maxsize=128)
def _of_type(output: Any) -> OutputKind[Any]:
    return _of_pydantic(output) if _is_pydantic(output) else _of_msgspec(output)


def _is_pydantic(output: Any) -> bool:
    if hasattr(output, "__pydantic_validator__") or hasattr(output, "__pydantic_core_schema__"):
        return True
    return any(_is_pydantic(each) for each in get_args(output))


def _of_pydantic(output: Any) -> OutputKind[Any]:
    from pydantic import PydanticUserError, TypeAdapter, ValidationError
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(output)
        schema = adapter.json_schema()
    except (PydanticUserError, PydanticInvalidForJsonSchema) as error:
        raise _undescribed(output, error) from error

    def build(value: Any) -> Any:
        try:
            return adapter.validate_json(encode(value))
        except ValidationError as error:
            listed = error.errors(include_url=False, include_input=False)
            raise Unfit(
                tuple(
                    OutputProblem(path=path_of(e["loc"]), message=e["msg"])
                    for e in listed[:_MOST_PROBLEMS]
                )
            ) from error

    return _described(schema, build)


def _of_msgspec(output: Any) -> OutputKind[Any]:
    import msgspec

    try:
        schema = msgspec.json.schema(output)
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(output)
    except (TypeError, ValueError, NameError) as error:
        raise _undescribed(output, error) from error

    def build(value: Any) -> Any:
        try:
            return _converted(decoder.decode(encode(value)))
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            # It names the first problem alone; the schema may name more.
            raise Unfit(checker(schema)(value) or (_problem_of(str(error)),)) from error

    return _described(schema, build)


def _checked_by(schema: Mapping[str, Any]) -> Callable[[Any], Any]:
    problems = checker(schema)

    def build(value: Any) -> Any:
        found = problems(value)
        if found:
            raise Unfit(found)
        return value

    return build


def _described(schema: dict[str, Any], build: Callable[[Any], T]) -> OutputKind[T]:
    root = _flattened(schema)
    if root.get("type") == "object":
        return OutputKind(root, schema, False, build)
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in shared and key != "$schema"}
    wrapped: dict[str, Any] = {
        "type": "object",
        "properties": {_WRAP: _moved(inner)},
        "required": [_WRAP],
        "additionalProperties": False,
        **{key: _moved(value) for key, value in shared.items()},
    }
    return OutputKind(wrapped, schema, True, build)


def _flattened(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` with the definition in its place that its root refers to, as providers want it."""
    target = schema.get("$ref")
    name = target.removeprefix("#/$defs/") if isinstance(target, str) else ""
    found = schema.get("$defs", {}).get(name)
    if not isinstance(found, Mapping) or "$ref" in found:
        return schema
    beside = {key: value for key, value in schema.items() if key not in ("$ref", "$defs")}
    root = {**found, **beside, "$defs": schema["$defs"]}
    if f'"{target}"' not in encode([found, schema["$defs"]]).decode():
        root["$defs"] = {key: each for key, each in schema["$defs"].items() if key != name}
    if not root["$defs"]:
        del root["$defs"]
    return root


def _moved(node: Any) -> Any:
    """``node`` with the references into its document's own root led to where that now lies."""
    if isinstance(node, list):
        return [_moved(each) for each in node]
    if not isinstance(node, dict):
        return node
    moved = {key: _moved(value) for key, value in node.items()}
    target = node.get("$ref")
    if isinstance(target, str) and _INTO_ROOT.match(target):
        moved["$ref"] = f"#/properties/{_WRAP}{target[1:]}"
    return moved


def _converted(value: Any) -> Any:
    """``value`` with attrs' converters run, which msgspec leaves out."""
    kind = type(value)
    if kind in (list, tuple):
        after = kind(_converted(each) for each in value)
        return value if all(map(is_, after, value)) else after
    if kind is dict:
        after = {key: _converted(each) for key, each in value.items()}
        return value if all(map(is_, after.values(), value.values())) else after
    own = getattr(kind, "__attrs_attrs__", None)
    if own is None:
        return value
    from attrs import evolve

    fields = [(a, getattr(value, a.name)) for a in own if a.init]
    inner = [(a, before, _converted(before)) for a, before in fields]
    changes = {a.alias: after for a, before, after in inner if a.converter or after is not before}
    return evolve(value, **changes) if changes else value


def _problem_of(said: str) -> OutputProblem:
    message, _, path = said.rpartition(" - at `")
    return OutputProblem(path=path.rstrip("`") if message else "$", message=message or said)


def _undescribed(output: Any, error: Exception) -> LLMInvalidRequestError:
    reason = str(error).partition("\n")[0]
    return LLMInvalidRequestError(
        f"output {output!r} cannot be described as a JSON Schema: {reason}", param="output"
    )
