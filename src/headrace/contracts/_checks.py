"""What validators and converters of contracts check: types, ranges, paths.

Each error names the field, the value and what would be right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TypeAlias

from attrs import Attribute

Validator: TypeAlias = Callable[[Any, "Attribute[Any]", Any], None]


class _OfAField(Exception):
    """Words about a field; who reads them from afar is told which by the second argument."""

    def __str__(self) -> str:
        return str(self.args[0])


class WrongKind(_OfAField, TypeError):
    """A value of another type than its field's."""


class WrongAmount(_OfAField, ValueError):
    """A value of the right type that its field does not take."""


def kind(of: type, words: str) -> Validator:
    """Of that type, and no flag where a number is meant."""

    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        # bool is an int to Python, and to nobody else.
        if not isinstance(value, of) or (of is not bool and isinstance(value, bool)):
            raise WrongKind(f"{attribute.name} is {value!r}; {words} is needed", attribute)

    return check


def number(_: Any, attribute: Attribute[Any], value: Any) -> None:
    """A finite float."""
    if isinstance(value, bool) or not isinstance(value, float):
        raise WrongKind(f"{attribute.name} is {value!r}; a number is needed", attribute)
    if not math.isfinite(value):
        raise WrongAmount(f"{attribute.name} is {value!r}; a finite number is needed", attribute)


def as_float(value: Any) -> Any:
    """A whole number where a number is meant is that number; anything else is left to be judged."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def as_floats(values: Any) -> Any:
    """``as_float`` of each value."""
    if not isinstance(values, Mapping):
        return values
    return {name: as_float(value) for name, value in values.items()}


def at_least(least: int) -> Validator:
    """From ``least`` on."""

    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value < least:
            raise WrongAmount(f"{attribute.name} is {value!r}; it must be >= {least}", attribute)

    return check


def absolute(_: Any, attribute: Attribute[Any], value: Any) -> None:
    """An absolute path, as text."""
    if not PurePath(value).is_absolute():
        raise WrongAmount(f"{attribute.name} is {value!r}; it must be an absolute path", attribute)


def one_of(*choices: str) -> Validator:
    """One of those texts."""

    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value not in choices:
            raise WrongAmount(
                f"{attribute.name} is {value!r}; it must be {' or '.join(choices)}", attribute
            )

    return check


def numbers(_: Any, attribute: Attribute[Any], values: Any) -> None:
    """Finite floats by name."""
    if not isinstance(values, Mapping):
        raise WrongKind(f"{attribute.name} is {values!r}; numbers by name are needed", attribute)
    for name, value in values.items():
        if not isinstance(name, str):
            raise WrongKind(f"{attribute.name} has the name {name!r}; a text is needed", attribute)
        if isinstance(value, bool) or not isinstance(value, float) or not math.isfinite(value):
            raise WrongKind(
                f"{attribute.name}[{name!r}] is {value!r}; a finite number is needed", attribute
            )


def or_none(check: Validator) -> Validator:
    """None, or what ``check`` takes."""

    def checked(instance: Any, attribute: Attribute[Any], value: Any) -> None:
        if value is not None:
            check(instance, attribute, value)

    return checked
