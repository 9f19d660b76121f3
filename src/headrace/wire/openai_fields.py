"""Checks of single values in an OpenAI request; each refusal names the field, as OpenAI's do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias, TypeVar

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire.json import kind, shorten

Check: TypeAlias = Callable[[Any, str], Any]
"""Takes a value and the path of its field; gives what to keep of it, or refuses."""

_C = TypeVar("_C", bound=Check)
_SCHEMAS: dict[Check, dict[str, Any]] = {}


def says(schema: dict[str, Any]) -> Callable[[_C], _C]:
    """Mark a check with the JSON Schema of what it lets pass, for the OpenAPI document."""

    def mark(check: _C) -> _C:
        _SCHEMAS[check] = schema
        return check

    return mark


def schema_of(check: Check) -> dict[str, Any]:
    """The JSON Schema that ``check`` was marked with; ``{}``, which is anything, for the others."""
    return _SCHEMAS.get(check, {})


def refuse(path: str, value: object, right: str) -> NoReturn:
    """``value`` at ``path`` is of the right type, but not one of the values that are ``right``."""
    raise LLMInvalidRequestError(
        f"Invalid value for '{path}': {shorten(value)}. Expected {right}.",
        param=path,
        code="invalid_value",
    )


def refuse_type(path: str, value: object, right: str) -> NoReturn:
    """``value`` at ``path`` has the wrong type; ``right`` names the right one with its article."""
    got = kind(value) if value is None else f"{kind(value)}: {shorten(value)}"
    raise LLMInvalidRequestError(
        f"Invalid type for '{path}': expected {right}, but got {got}.",
        param=path,
        code="invalid_type",
    )


def refuse_absence(path: str, right: str) -> NoReturn:
    """The required field at ``path`` is missing; ``right`` says what it should hold."""
    raise LLMInvalidRequestError(
        f"Missing required parameter: '{path}'. Expected {right}.",
        param=path,
        code="missing_required_parameter",
    )


@says({"type": "string"})
def text(value: Any, path: str) -> str:
    """``value``, which must be a string."""
    if type(value) is not str:
        refuse_type(path, value, "a string")
    return value


@says({"type": "string", "minLength": 1})
def filled_text(value: Any, path: str) -> str:
    """``value``, which must be a string with something in it."""
    if type(value) is not str:
        refuse_type(path, value, "a string")
    if not value:
        refuse(path, value, "a string that is not empty")
    return value


@says({"type": "boolean"})
def boolean(value: Any, path: str) -> bool:
    """``value``, which must be true or false."""
    if type(value) is not bool:
        refuse_type(path, value, "a boolean")
    return value


@says({"type": "object"})
def mapping(value: Any, path: str) -> dict[str, Any]:
    """``value``, which must be an object."""
    if type(value) is not dict:
        refuse_type(path, value, "an object")
    return value


@says({"type": "array"})
def array(value: Any, path: str) -> list[Any]:
    """``value``, which must be an array."""
    if type(value) is not list:
        refuse_type(path, value, "an array")
    return value


def member(wire: dict[str, Any], key: str, path: str, check: Check, right: str) -> Any:
    """The required field ``key`` of the object at ``path``."""
    value = wire.get(key)
    if value is None:
        refuse_absence(f"{path}.{key}", right)
    return check(value, f"{path}.{key}")


def optional(wire: dict[str, Any], key: str, path: str, check: Check) -> Any:
    """The field ``key`` of the object at ``path``, or ``None`` where it is absent or null."""
    value = wire.get(key)
    return None if value is None else check(value, f"{path}.{key}")


def integer(low: int, high: int) -> Check:
    """A check for an integer from ``low`` to ``high``; 16.0 passes for 16, as JSON has it."""

    @says({"type": "integer", "minimum": low, "maximum": high})
    def check(value: Any, path: str) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            refuse_type(path, value, "an integer")
        if not low <= value <= high:
            _refuse_range(path, value, "integer", low, high)
        return value

    return check


def number(low: float, high: float) -> Check:
    """A check for a number from ``low`` to ``high``."""

    @says({"type": "number", "minimum": low, "maximum": high})
    def check(value: Any, path: str) -> float:
        if type(value) is not float and type(value) is not int:
            refuse_type(path, value, "a number")
        if not low <= value <= high:
            _refuse_range(path, value, "decimal", low, high)
        return value

    return check


def one_of(*words: str) -> Check:
    """A check for one of some ``words``."""

    @says({"type": "string", "enum": list(words)})
    def check(value: Any, path: str) -> str:
        if text(value, path) not in words:
            refuse(path, value, "one of " + ", ".join(f"'{word}'" for word in words))
        return str(value)

    return check


def _refuse_range(path: str, value: float, what: str, low: float, high: float) -> NoReturn:
    side, bound = ("below minimum", f">= {low}") if value < low else ("above maximum", f"<= {high}")
    raise LLMInvalidRequestError(
        f"Invalid '{path}': {what} {side} value. "
        f"Expected a value {bound}, but got {shorten(value)} instead.",
        param=path,
        code=f"{what}_{'below_min' if value < low else 'above_max'}_value",
    )
