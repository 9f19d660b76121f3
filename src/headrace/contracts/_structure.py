"""The rules by which plain values become values of a type and back; see ``convert``.

One pair of functions for each kind of type: ``_read_...`` makes the strict reader that cattrs
calls, ``_write_...`` its inverse.
"""

from __future__ import annotations

import binascii
import math
import re
import types
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from headrace.contracts._complaints import WrongValue

Reader: TypeAlias = Callable[[Any, Any], Any]
Writer: TypeAlias = Callable[[Any], Any]

_PLAIN_KINDS: dict[Any, Sequence[type]] = {
    type(None): (type(None),),
    str: (str,),
    bytes: (str,),
    bool: (bool,),
    int: (int,),
    float: (int, float),
    Decimal: (str, int),
}
_WORDS: dict[Any, str] = {
    type(None): "null",
    str: "text",
    bytes: "base64 text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def make_converter() -> Converter:
    """A converter that knows the rules for every type that contracts use."""
    c = Converter(forbid_extra_keys=True, detailed_validation=True)
    c.register_structure_hook_func(_is_anything, lambda value, _: value)
    for cls, reader, writer in (
        (str, _read_str, None),
        (bool, _read_bool, None),
        (int, _read_int, None),
        (float, _read_float, None),
        (bytes, _read_bytes, lambda v: b64encode(v).decode("ascii")),
        (Decimal, _read_decimal, str),
    ):
        c.register_structure_hook(cls, reader)
        if writer is not None:
            c.register_unstructure_hook(cls, writer)
    c.register_structure_hook_func(_is_path, _read_path)
    c.register_structure_hook(Path, _read_path)  # cattrs has a laxer one of its own
    c.register_unstructure_hook_func(_is_path, str)
    c.register_structure_hook_func(_is_choice, _read_choice)
    for matches, read, write in (
        (_is_attrs, _read_attrs, None),
        (_is_sequence, _read_sequence, _write_sequence),
        (_is_mapping, _read_mapping, _write_mapping),
        (_is_union, _read_union, _write_union),
    ):
        c.register_structure_hook_factory(matches, _bound(read, c))
        if write is not None:
            c.register_unstructure_hook_factory(matches, _bound(write, c))
    return c


def _bound(make: Callable[[Any, Converter], Any], c: Converter) -> Callable[[Any], Any]:
    return lambda tp: make(tp, c)


# Single values.


def _read_str(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise WrongValue("text", value)
    return value


def _read_bool(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValue("true or false", value)
    return value


def _read_int(value: object, _: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongValue("a whole number", value)
    return value


def _read_float(value: object, _: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise WrongValue("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise WrongValue("a finite number", value)
    return number


def _read_bytes(value: object, _: object) -> bytes:
    try:
        if isinstance(value, str):
            return b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise WrongValue("base64 text", value)


def _read_decimal(value: object, _: object) -> Decimal:
    # Not a float: 0.1 has already ceased to be a tenth when it gets here.
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            pass
        else:
            if number.is_finite():
                return number
    raise WrongValue('a decimal number as text (such as "0.15")', value)


def _read_path(value: object, cls: type[PurePath]) -> PurePath:
    if not isinstance(value, str):
        raise WrongValue("a path", value)
    return cls(value)


def _read_choice(value: object, tp: Any) -> object:
    choices = _choices(tp)
    for plain, choice in choices:
        # The type too: 1 == True == 1.0.
        if plain == value and type(plain) is type(value):
            return choice
    raise WrongValue(_one_of([plain for plain, _ in choices]), value)


# Classes and collections.


def _read_attrs(cls: Any, c: Converter) -> Reader:
    # Generated first for the class itself, so that a class which holds its like finds a reader.
    inner = make_dict_structure_fn(cls, c)

    def read(value: object, _: object) -> object:
        if not isinstance(value, dict):
            raise WrongValue("an object", value)
        return inner(value, cls)

    return read


def _read_sequence(tp: Any, c: Converter) -> Reader:
    args = get_args(tp)
    kind: Callable[[list[Any]], Any] = {list: list, frozenset: frozenset}.get(
        get_origin(tp) or tp, tuple
    )
    fixed = get_origin(tp) is tuple and not (len(args) == 2 and args[1] is Ellipsis)

    def read(value: object, _: object) -> object:
        if not isinstance(value, (list, tuple)):
            raise WrongValue("a list", value)
        if fixed and len(value) != len(args):
            raise WrongValue(f"a list of {len(args)}", value)
        made, wrong = [], []
        for i, item in enumerate(value):
            of = args[i] if fixed else args[0] if args else Any
            try:
                made.append(c.get_structure_hook(of)(item, of))
            except Exception as error:  # noqa: BLE001 - gathered, and raised together below
                wrong.append(_noted(error, IterableValidationNote("", i, of)))
        if wrong:
            raise IterableValidationError("", wrong, tp)
        return kind(made)

    return read


def _write_sequence(tp: Any, c: Converter) -> Writer:
    args = get_args(tp)
    fixed = get_origin(tp) is tuple and not (len(args) == 2 and args[1] is Ellipsis)

    def write(values: Sequence[object] | frozenset[object]) -> list[object]:
        if isinstance(values, frozenset):
            values = sorted(values, key=repr)  # the same text every time
        kinds = args if fixed else [args[0] if args else Any] * len(values)
        return [_write(v, kind, c) for v, kind in zip(values, kinds, strict=True)]

    return write


def _read_mapping(tp: Any, c: Converter) -> Reader:
    key_type, value_type = get_args(tp) or (Any, Any)

    def read(value: object, _: object) -> object:
        if not isinstance(value, dict):
            raise WrongValue("an object", value)
        made, wrong = {}, []
        for key, inner in value.items():
            try:
                made[c.get_structure_hook(key_type)(key, key_type)] = c.get_structure_hook(
                    value_type
                )(inner, value_type)
            except Exception as error:  # noqa: BLE001 - gathered, and raised together below
                wrong.append(_noted(error, IterableValidationNote("", key, value_type)))
        if wrong:
            raise IterableValidationError("", wrong, tp)
        return made

    return read


def _write_mapping(tp: Any, c: Converter) -> Writer:
    key_type, value_type = get_args(tp) or (Any, Any)

    def write(values: Mapping[object, object]) -> dict[object, object]:
        return {_write(k, key_type, c): _write(v, value_type, c) for k, v in values.items()}

    return write


# One of several types.


def _read_union(tp: Any, c: Converter) -> Reader:
    members = get_args(tp)
    classes = [m for m in members if _is_attrs(m)]
    tags = {_tag(m): m for m in classes} if _is_tagged(members) else {}
    open_mapping = any(_is_mapping(m) for m in members)

    def read(value: object, _: object) -> object:
        if value is None and type(None) in members:
            return None
        if tags and isinstance(value, dict):
            named = value.get("type")
            if isinstance(named, str) and named in tags:
                cls = tags[named]
                rest = {k: v for k, v in value.items() if k != "type"}
                return c.get_structure_hook(cls)(rest, cls)
            if not open_mapping:
                raise _at_type(named, value, tags)
        untagged = [m for m in members if not (tags and _is_attrs(m))]
        fitting = [m for m in untagged if _fits(value, m)]
        if not fitting:
            raise WrongValue(" or ".join(_kind(m) for m in members), value)
        for member in fitting[:-1]:
            try:
                return c.get_structure_hook(member)(value, member)
            except (WrongValue, IterableValidationError, ClassValidationError):
                continue
        return c.get_structure_hook(fitting[-1])(value, fitting[-1])

    return read


def _write_union(tp: Any, c: Converter) -> Writer:
    members = get_args(tp)
    tagged = _is_tagged(members)

    def write(value: object) -> object:
        for member in members:
            if _is_attrs(member):
                if type(value) is member:
                    plain = _write(value, member, c)
                    return {"type": _tag(member), **plain} if tagged else plain
            elif _holds(value, member):
                return _write(value, member, c)
        return c.unstructure(value)

    return write


def _at_type(named: object, value: dict[str, object], tags: dict[str, type]) -> Exception:
    missing = "type" not in value
    error = KeyError("type") if missing else WrongValue(_one_of(tags), named)
    note = AttributeValidationNote("", "type", str)
    return ClassValidationError("", [_noted(error, note)], next(iter(tags.values())))


def _one_of(words: Iterable[object]) -> str:
    shown = [repr(w) for w in words]
    return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"


def _tag(cls: type) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__.removesuffix("Part")).lower()


def _is_tagged(members: Sequence[Any]) -> bool:
    """Whether an object may be of several of these, so that it has to say of which."""
    classes = [m for m in members if _is_attrs(m)]
    tagged = bool(classes) and len(classes) + sum(_is_mapping(m) for m in members) > 1
    for cls in classes if tagged else ():
        if "type" in attrs.fields_dict(cls):
            raise TypeError(f"{cls.__name__} cannot be told by its 'type': it has such a field")
    return tagged


def _fits(value: object, tp: Any) -> bool:
    """Whether the plain ``value`` is of the kind that a ``tp`` is read from."""
    kinds = _plain_kinds(tp)
    return type(value) in kinds or object in kinds


def _plain_kinds(tp: Any) -> Sequence[type]:
    if _is_attrs(tp) or _is_mapping(tp):
        return (dict,)
    if _is_sequence(tp):
        return (list, tuple)
    if _is_choice(tp):
        return [type(plain) for plain, _ in _choices(tp)]
    if _is_path(tp):
        return (str,)
    return _PLAIN_KINDS.get(tp, (object,))


def _holds(value: object, tp: Any) -> bool:
    """Whether ``value`` is one of ``tp``'s, as far as its outermost type tells."""
    if _is_anything(tp):
        return True
    if _is_choice(tp):
        return any(choice == value and type(choice) is type(value) for _, choice in _choices(tp))
    if _is_sequence(tp):
        return isinstance(value, (list, tuple, frozenset))
    if _is_mapping(tp):
        return isinstance(value, Mapping)
    return isinstance(tp, type) and isinstance(value, tp)


def _kind(tp: Any) -> str:
    if _is_attrs(tp) or _is_mapping(tp):
        return "an object"
    if _is_sequence(tp):
        return "a list"
    if _is_choice(tp):
        return _one_of([plain for plain, _ in _choices(tp)])
    return _WORDS.get(tp) or str(getattr(tp, "__name__", tp))


def _choices(tp: Any) -> list[tuple[object, object]]:
    """What a Literal or an Enum permits: each as it is written, and as it is."""
    if isinstance(tp, type) and issubclass(tp, Enum):
        return [(member.value, member) for member in tp]
    return [(value, value) for value in get_args(tp)]


# Which kind a type is.


def _is_anything(tp: Any) -> bool:
    return tp is object or tp is Any


def _is_attrs(tp: Any) -> bool:
    return isinstance(tp, type) and attrs.has(tp)


def _is_path(tp: Any) -> bool:
    return isinstance(tp, type) and issubclass(tp, PurePath)


def _is_choice(tp: Any) -> bool:
    return get_origin(tp) is Literal or (isinstance(tp, type) and issubclass(tp, Enum))


def _is_sequence(tp: Any) -> bool:
    return any((get_origin(tp) or tp) is kind for kind in (list, tuple, frozenset, Sequence))


def _is_mapping(tp: Any) -> bool:
    return any((get_origin(tp) or tp) is kind for kind in (dict, Mapping))


def _is_union(tp: Any) -> bool:
    return get_origin(tp) in (Union, types.UnionType)


def _write(value: object, tp: Any, c: Converter) -> Any:
    return c.unstructure(value) if _is_anything(tp) else c.unstructure(value, unstructure_as=tp)


def _noted(error: Exception, note: str) -> Exception:
    error.__notes__ = [*getattr(error, "__notes__", []), note]
    return error
