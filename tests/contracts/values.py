"""Random values of any contract type."""

import types
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from hypothesis import strategies as st

TEXT = st.text(max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.none() | st.booleans() | INTEGERS | NUMBERS | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
SINGLE: dict[Any, st.SearchStrategy[Any]] = {
    object: JSON,
    str: TEXT,
    int: INTEGERS,
    float: NUMBERS,
    bool: st.booleans(),
    bytes: st.binary(max_size=8),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
}


def values_of(tp: Any) -> st.SearchStrategy[Any]:
    if tp in SINGLE:
        return SINGLE[tp]
    args, origin = get_args(tp), get_origin(tp)
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(a) for a in args])
    if origin in (tuple, Sequence):
        return st.lists(values_of(args[0]), max_size=2).map(tuple)
    if origin in (dict, Mapping):
        return st.dictionaries(values_of(args[0]), values_of(args[1]), max_size=2)
    assert attrs.has(tp), tp
    return st.deferred(lambda: contracts_of(tp))


def contracts_of(cls: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    fields = attrs.fields(cls)
    required = {f.name: values_of(hints[f.name]) for f in fields if f.default is attrs.NOTHING}
    optional = {f.name: values_of(hints[f.name]) for f in fields if f.name not in required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda given: cls(**given))
