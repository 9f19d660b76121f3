"""Frozen classes of many fields that are made in half the time.

attrs sets each field of a frozen object through ``object.__setattr__``, since the class's own refuses:
a call for each. A request, its answer and its record have a hundred and fifty fields, and setting
them was a sixth of all that a call costs. Here an object is of an open class while it is filled, so
that its fields are stored as those of any object are, and of its own class from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import NOTHING, Attribute, fields

T = TypeVar("T")

_copies: dict[type, Callable[[Any], Any]] = {}


def quick_init(cls: type[T]) -> type[T]:
    """``cls``, a frozen attrs class with slots and keywords only, with an ``__init__`` that is quick.

    It means the same as attrs' own, which may only store fields: no validators, no converters.
    """
    own: tuple[Attribute[Any], ...] = fields(cls)  # type: ignore[arg-type]
    for f in own:
        stored = f.init and f.kw_only and f.alias == f.name and not (f.validator or f.converter)
        if not stored or getattr(f.default, "takes_self", False):
            raise TypeError(f"{cls.__name__}.{f.name} is more than a keyword that is stored")
    usual: Any = cls.__init__
    opened = {"__slots__": (), "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    names: dict[str, Any] = {
        "Frozen": cls,
        "Open": type(f"_Open{cls.__name__}", (cls,), opened),
        "NOTHING": NOTHING,
        "set_attribute": object.__setattr__,
        "usual": usual,
    }
    parameters, stores = [], []
    for f in own:
        parameter, value = f.name, f.name
        if factory := getattr(f.default, "factory", None):
            names[f"new_{f.name}"] = factory
            parameter += "=NOTHING"
            value = f"new_{f.name}() if {f.name} is NOTHING else {f.name}"
        elif f.default is not NOTHING:
            names[f"default_{f.name}"] = f.default
            parameter += f"=default_{f.name}"
        parameters.append(parameter)
        stores.append(f"    self.{f.name} = {value}")
    code = [
        f"def __init__(self, *, {', '.join(parameters)}):",
        "    if self.__class__ is not Frozen:",  # a subclass, whose objects may be laid out otherwise
        f"        return usual(self, {', '.join(f'{f.name}={f.name}' for f in own)})",
        "    set_attribute(self, '__class__', Open)",
        *stores,
        "    self.__class__ = Frozen",
    ]
    exec("\n".join(code), names)  # noqa: S102 - nothing but the names of our own fields, as in attrs
    made = names["__init__"]
    _copies[cls] = _copier(cls, names["Open"], own)
    made.__qualname__, made.__module__ = usual.__qualname__, usual.__module__
    made.__annotations__ = usual.__annotations__
    type.__setattr__(cls, "__init__", made)
    return cls


def changed(before: T, **changes: Any) -> T:
    """``before`` with other values in some fields: ``attrs.evolve`` for classes with a quick init."""
    cls: type[T] = type(before)
    after: T = _copies[cls](before)
    for name, value in changes.items():
        if name not in cls.__annotations__:
            raise TypeError(f"{cls.__name__} has no field {name!r}")
        setattr(after, name, value)
    object.__setattr__(after, "__class__", cls)
    return after


def _copier(
    cls: type[Any], opened: type[Any], own: tuple[Attribute[Any], ...]
) -> Callable[[Any], Any]:
    """What makes an open copy of an object of ``cls``."""
    lines = [f"    after.{f.name} = before.{f.name}" for f in own]
    code = [
        "def copied(before):",
        "    after = new(Frozen)",
        "    set_attribute(after, '__class__', Open)",
    ]
    names: dict[str, Any] = {
        "new": object.__new__,
        "Frozen": cls,
        "Open": opened,
        "set_attribute": object.__setattr__,
    }
    exec("\n".join([*code, *lines, "    return after"]), names)  # noqa: S102 - as above
    copied: Callable[[Any], Any] = names["copied"]
    return copied
