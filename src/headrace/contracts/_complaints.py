"""What was wrong with an input, and where: the errors of cattrs as sentences with a path."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

import attrs
from attrs import frozen


class WrongValue(ValueError):
    """A value that is not what its place takes; ``expected`` says what would be right."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(expected, value)
        self.expected = expected
        self.value = value


@frozen(kw_only=True)
class Complaint:
    """One thing that is wrong; ``path`` is where (``$`` is the whole), ``hint`` what may be meant.

    ``param`` is the wrong field's own path without the ``$``, ``None`` where it is the whole.
    """

    what: str
    path: str
    param: str | None
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.what} @ {self.path}{self.hint}"


def complaints(error: Exception, path: str = "$") -> list[Complaint] | None:
    """All that ``error`` says about the input at ``path``; ``None`` if it is no error of it."""
    from cattrs.errors import BaseValidationError

    if not isinstance(error, (BaseValidationError, WrongValue)):
        return None
    return list(_walk(error, path, secret=False))


def _walk(error: Exception, path: str, *, secret: bool) -> Iterator[Complaint]:
    from cattrs.errors import (
        ClassValidationError,
        ForbiddenExtraKeysError,
        IterableValidationError,
    )

    if isinstance(error, ClassValidationError):
        inner, whole = error.group_exceptions()
        for sub, note in inner:
            hidden = secret or _is_secret(error.cl, note.name)
            yield from _walk(sub, _child(path, note.name), secret=hidden)
        for sub in whole:
            yield from _walk(sub, path, secret=secret)
    elif isinstance(error, IterableValidationError):
        for sub, item in error.group_exceptions()[0]:
            yield from _walk(sub, _child(path, item.index), secret=secret)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [f.alias or f.name for f in attrs.fields(error.cl) if f.init]
        for name in sorted(error.extra_fields, key=str):
            yield _unknown(name, path, known)
    elif isinstance(error, KeyError):
        yield _complaint("required field missing", path)
    elif isinstance(error, WrongValue):
        got = "a value not shown" if secret else _shown(error.value)
        yield _complaint(f"expected {error.expected}, got {got}", path)
    elif isinstance(error, (ValueError, TypeError)):
        yield _refusal(error, path, secret=secret)
    else:
        # A mistake in a class's definition, not in the input.
        raise error


def _complaint(what: str, path: str, hint: str = "", param: str | None = None) -> Complaint:
    param = (param or path).removeprefix("$").removeprefix(".")
    return Complaint(what=what, path=path, hint=hint, param=param or None)


def _refusal(error: Exception, path: str, *, secret: bool) -> Complaint:
    """What a class's own validator said; attrs' own ones hand over the field beside the words."""
    words = str(error)
    match error.args:
        case (str() as words, attrs.Attribute() as field, *_):
            path = _child(path, field.name)
            secret = secret or field.repr is False
        case _:
            pass
    return _complaint("invalid value" if secret else f"invalid value: {words}", path)


def _unknown(name: object, path: str, known: list[str]) -> Complaint:
    near = get_close_matches(str(name), known, n=1)
    if near:
        hint = f" (nearest: {near[0]!r})"
    elif known:
        hint = f" (known: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''})"
    else:
        hint = ""
    return _complaint(f"unknown field {name!r}", path, hint, param=_child(path, name))


def _is_secret(cls: type, name: str) -> bool:
    """Whether a field is shown nowhere, or only in part (``metadata={"secret": True}``)."""
    field = attrs.fields_dict(cls).get(name) if attrs.has(cls) else None
    return field is not None and (field.repr is False or bool(field.metadata.get("secret")))


def _child(path: str, key: object) -> str:
    if isinstance(key, str):
        return f"{path}.{key}" if key.isidentifier() else f"{path}[{key!r}]"
    return f"{path}[{key}]"


def _shown(value: object) -> str:
    match value:
        case None:
            return "null"
        case True | False:
            return "true" if value else "false"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
