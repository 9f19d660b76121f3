"""What a function's annotations say of what it takes and gives."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from headrace.client.structured.kinds import kind_of
from headrace.contracts.errors import LLMInvalidRequestError

_PLAIN = {str, int, float, bool, NoneType, Any, object, dict, list, Mapping, Sequence, Iterable}
_MANY = (list, tuple, set, Iterable, Iterator, Sequence, AsyncIterable, AsyncIterator)


def annotations_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """By parameter, and ``return``; nothing, where they name what cannot be found."""
    for holder in (function, type(function).__call__):
        try:
            found = get_type_hints(holder)
        except (TypeError, NameError, AttributeError):
            # A class inside a function cannot be found by its name: then nothing is known.
            continue
        if found:
            return found
    return {}


def taken(function: Callable[..., Any]) -> Any:
    """The type of the one value that ``function`` takes; None where that is not known."""
    try:
        parameters = list(signature(function).parameters.values())
    except (TypeError, ValueError):  # of some that are written in C
        return None
    if not parameters or parameters[0].kind in (Parameter.VAR_POSITIONAL, Parameter.KEYWORD_ONLY):
        return None
    return _described(annotations_of(function).get(parameters[0].name))


def given(function: Callable[..., Any], *, many: bool = False) -> Any:
    """The type of what ``function`` gives, or of each where it gives ``many``; None: not known."""
    found = annotations_of(function).get("return")
    return _described(_each(found) if many else found)


def each_taken(function: Callable[..., Any]) -> Any:
    """The type of each value of the list that ``function`` takes."""
    try:
        first = next(iter(signature(function).parameters.values()), None)
    except (TypeError, ValueError):
        return None
    return None if first is None else _described(_each(annotations_of(function).get(first.name)))


def is_plain(annotation: Any) -> bool:
    """Whether a value of it is what JSON gives already, so that nothing has to be made of it."""
    inner = get_args(annotation)
    origin = get_origin(annotation)
    if not inner:
        return isinstance(annotation, Mapping) or annotation in _PLAIN
    return (origin in _PLAIN or origin in (Union, UnionType)) and all(map(is_plain, inner))


def _each(annotation: Any) -> Any:
    inner = get_args(annotation)
    return inner[0] if get_origin(annotation) in _MANY and inner else None


def _described(annotation: Any) -> Any:
    """``annotation``, where it says something that JSON can hold."""
    if annotation in (None, NoneType, Any, object):
        return None
    try:
        kind_of(annotation)
    except LLMInvalidRequestError:  # a type of the function's own: nothing is known of it here
        return None
    return annotation
