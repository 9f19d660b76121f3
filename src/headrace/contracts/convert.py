"""Contracts, and any other attrs classes, to and from JSON, YAML and plain values.

Plain values are what JSON has: dict, list, str, int, float, bool and None. Reading is strict: no
text becomes a number, no ``True`` a 1 (a whole number where a float is meant is fine), an unknown
key is refused. A wrong input is an LLMInvalidRequestError that names each wrong place, such as
``required field missing @ $.messages[2].role``; it never shows what a field with ``repr=False``
holds, since that is where secrets are.

Bytes are written as base64 and Decimal as text. Where a field may be one of several classes, an
object says which by its ``type``: the class's name in lower case, without a final ``Part``.

The rules for each type are in ``_structure``; cattrs, msgspec and PyYAML are loaded by first use.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, TypeVar, cast

from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")


def to_plain(value: object) -> object:
    """``value``, an attrs object or a collection of such, as plain values."""
    return _converter().unstructure(value)


def from_plain(plain: object, cls: type[T], *, path: str = "$") -> T:
    """The ``cls`` that ``plain`` says; LLMInvalidRequestError naming the path where it does not.

    ``path`` is where ``plain`` stands in what its writer sees.
    """
    try:
        return _converter().structure(plain, cls)
    except Exception as error:
        from headrace.contracts._complaints import complaints

        # Only what the rules say about the input; a mistake in a class's definition stays itself.
        found = complaints(error, path)
        if found is None:
            raise
        raise LLMInvalidRequestError(
            "; ".join(str(c) for c in found), param=found[0].param
        ) from error


def to_json(value: object) -> bytes:
    """``value`` as compact JSON; LLMInvalidRequestError where it holds what JSON cannot say."""
    import msgspec

    plain = to_plain(value)
    _require_json(plain, "$")
    try:
        return msgspec.json.encode(plain)
    except (OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise LLMInvalidRequestError(f"cannot be written as JSON: {error}") from error


def from_json(data: bytes | str, cls: type[T]) -> T:
    """The ``cls`` in the JSON text ``data``."""
    import msgspec

    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise LLMInvalidRequestError(f"not JSON: {error}") from error
    return from_plain(plain, cls)


def from_yaml(text: str, cls: type[T]) -> T:
    """The ``cls`` in the YAML ``text``, read by YAML 1.2's rules; a key given twice is refused."""
    from headrace.contracts._yaml import read_yaml

    return from_plain(read_yaml(text), cls)


@cache
def _converter() -> Converter:
    from headrace.contracts._structure import make_converter

    return make_converter()


def _require_json(plain: object, path: str) -> None:
    """Refuse what msgspec would write in a way that reads back as something else."""
    if plain is None or isinstance(plain, (str, int)):
        return
    if isinstance(plain, float):
        if not math.isfinite(plain):
            raise LLMInvalidRequestError(
                f"JSON has no {plain}; a finite number is expected @ {path}"
            )
    elif isinstance(plain, dict):
        for key, inner in plain.items():
            if not isinstance(key, str):
                raise LLMInvalidRequestError(f"JSON keys are text, not {key!r} @ {path}")
            _require_json(inner, f"{path}.{key}")
    elif isinstance(plain, (list, tuple)):
        for i, inner in enumerate(cast("list[object]", plain)):
            _require_json(inner, f"{path}[{i}]")
    else:
        raise LLMInvalidRequestError(f"JSON has no form for a {type(plain).__name__} @ {path}")
