"""What is asked of a model that is no language model, and what it answers: tensors, or plain values."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, Literal, TypeAlias, get_args

from attrs import field, frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.responses import Usage
from headrace.contracts.snapshot import LatencySummary

Datatype: TypeAlias = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BYTES",
]
"""What a tensor's elements are, by the names of the Open Inference Protocol."""

DATATYPES: tuple[Datatype, ...] = get_args(Datatype)

_CODES: Mapping[str, str] = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "f",
    "FP32": "f",
    "FP64": "d",
    "BF16": "f",
}


@frozen(kw_only=True)
class Tensor:
    """A named array of one ``datatype``: its ``data`` lie flat, row by row, as ``shape`` says.

    Numbers become an ``array`` (16-bit floats one of 32 bits), truth values a tuple of ``bool``,
    BYTES a tuple of ``bytes``; a text is taken for its UTF-8. Raises LLMInvalidRequestError where
    the elements are none of that type, or more or fewer than the shape has.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: Sequence[Any] = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if self.datatype not in DATATYPES:
            raise _wrong(
                self.name,
                f"datatype is {self.datatype!r}, must be one of {', '.join(DATATYPES)}",
            )
        object.__setattr__(self, "shape", tuple(self.shape))
        for size in self.shape:
            if type(size) is not int or size < 0:
                raise _wrong(self.name, f"shape has {size!r}, must be whole numbers from 0")
        data = _elements(self.name, self.datatype, self.data)
        wanted = prod(self.shape)
        if len(data) != wanted:
            raise _wrong(
                self.name,
                f"shape {list(self.shape)} has {wanted} elements, but there are {len(data)}",
            )
        object.__setattr__(self, "data", data)


@frozen(kw_only=True)
class InferRequest:
    """One question to a model: named tensors, or plain values where its server speaks of those.

    ``inputs`` are the tensors of one question; or values, each a question of its own, of which one
    alone may stand with ``single``. ``outputs`` are the tensors wanted, all of them where it is
    empty. ``version`` is the model's; ``parameters`` are its own. ``metadata`` stays with us.
    """

    inputs: tuple[Any, ...]
    model: str | None = None
    version: str | None = None
    outputs: tuple[str, ...] = ()
    parameters: dict[str, object] = field(factory=dict)
    single: bool = False
    metadata: dict[str, object] = field(factory=dict, repr=False)
    request_id: str | None = None


@frozen(kw_only=True)
class InferProblem:
    """Why the input at ``index`` has no output."""

    index: int
    message: str


@frozen(kw_only=True)
class InferResult:
    """What a model answered: tensors, or one value for each value that was asked about.

    A value that could not be answered is ``None`` among ``outputs`` and stands in ``problems``.
    """

    outputs: tuple[Any, ...]
    model_id: str | None = None
    version: str | None = None
    request_id: str | None = None
    parameters: dict[str, object] = field(factory=dict)
    problems: tuple[InferProblem, ...] = ()
    usage: Usage | None = None

    def tensor(self, name: str) -> Tensor:
        """The output tensor of that name; LLMInvalidRequestError names those that there are."""
        named = [each for each in self.outputs if isinstance(each, Tensor)]
        for each in named:
            if each.name == name:
                return each
        there = ", ".join(repr(each.name) for each in named) or "none"
        raise LLMInvalidRequestError(f"there is no output tensor {name!r}; there are: {there}")


@frozen(kw_only=True)
class TensorInfo:
    """A tensor that a model takes or gives; ``-1`` in its shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@frozen(kw_only=True)
class ModelMetadata:
    """What a model takes and gives, as its server tells."""

    name: str
    platform: str = ""
    versions: tuple[str, ...] = ()
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()


@frozen(kw_only=True)
class ModelStatistics:
    """What a model that is asked by plain values did since its server was started ``uptime_s`` ago.

    ``requests`` came; ``successes`` of them were answered, ``failures`` ended in an error, by its
    class's name, ``cancelled`` were given up by their callers, the others wait or run. Of their
    ``inputs``, ``failed_inputs`` could not be answered, although their request may have been.
    ``latency`` is of the successes, waiting included.
    """

    model: str
    uptime_s: float
    requests: int = 0
    successes: int = 0
    failures: Mapping[str, int] = field(factory=dict)
    cancelled: int = 0
    running: int = 0
    waiting: int = 0
    inputs: int = 0
    failed_inputs: int = 0
    latency: LatencySummary = field(factory=LatencySummary)


def _elements(name: str, datatype: str, data: Iterable[Any]) -> Sequence[Any]:
    code = _CODES.get(datatype)
    if code is not None:
        if isinstance(data, array) and data.typecode == code:
            return data
        try:
            values = list(data)
            if any(type(each) is bool for each in values):
                raise TypeError("a truth value is no number")
            return array(code, values)
        except (TypeError, ValueError, OverflowError) as error:
            raise _wrong(name, f"its data are no {datatype}: {error}") from error
    if isinstance(data, str | bytes):
        raise _wrong(name, "its data are one text, must be a sequence of elements")
    found = tuple(data)
    if datatype == "BOOL":
        for place, each in enumerate(found):
            if type(each) is not bool:
                raise _wrong(name, f"element {place} is a {type(each).__name__}, must be a bool")
        return found
    return tuple(_bytes(name, place, each) for place, each in enumerate(found))


def _bytes(name: str, place: int, element: object) -> bytes:
    if isinstance(element, str):
        try:
            return element.encode()
        except UnicodeEncodeError as error:
            raise _wrong(name, f"element {place} is no valid Unicode") from error
    if isinstance(element, bytes):
        return element
    raise _wrong(name, f"element {place} is a {type(element).__name__}, must be bytes or text")


def _wrong(name: str, what: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"tensor {name[:100]!r}: {what}", param=name[:100])
