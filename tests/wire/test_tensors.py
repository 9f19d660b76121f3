"""Tensors as raw bytes and as JSON, each way, and what is said of those that cannot be."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import LLMInvalidRequestError, Tensor, tensor_of
from headrace.contracts.inference import DATATYPES
from headrace.wire.tensors import from_json, pack, to_json, unpack

_BITS = {name: int(name.lstrip("UINT")) for name in DATATYPES if "INT" in name}


def elements(datatype: str) -> st.SearchStrategy:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.binary(max_size=6)
    if datatype in _BITS:
        bits = _BITS[datatype]
        low, high = (
            (0, 2**bits - 1) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
        return st.integers(low, high)
    width = {"FP16": 16, "FP64": 64}.get(datatype, 32)
    return st.floats(width=width, allow_nan=False)


@st.composite
def tensors(draw, datatypes=DATATYPES):
    datatype = draw(st.sampled_from(datatypes))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = math.prod(shape)
    data = draw(st.lists(elements(datatype), min_size=count, max_size=count))
    tensor = Tensor(name=draw(st.text(max_size=5)), datatype=datatype, shape=shape, data=data)
    if datatype == "BF16":  # which has fewer bits than what it is kept in
        return unpack(tensor.name, "BF16", shape, pack(tensor))
    return tensor


@given(tensors())
def test_what_is_packed_is_unpacked_again(tensor):
    assert unpack(tensor.name, tensor.datatype, tensor.shape, pack(tensor)) == tensor


def is_text_or_finite(tensor: Tensor) -> bool:
    """Whether JSON has words for all that it holds."""
    if tensor.datatype != "BYTES":
        return all(map(math.isfinite, tensor.data))
    try:
        return all(each.decode() is not None for each in tensor.data)
    except UnicodeDecodeError:
        return False


@given(tensors())
def test_what_json_can_say_comes_back_from_json(tensor):
    if not is_text_or_finite(tensor):
        with pytest.raises(LLMInvalidRequestError, match="binary data"):
            to_json(tensor)
        return
    read = json.loads(json.dumps(to_json(tensor)))
    assert from_json(tensor.name, tensor.datatype, tensor.shape, read) == tensor


def test_the_bytes_are_those_of_the_protocol():
    def packed(datatype, data):
        return pack(Tensor(name="x", datatype=datatype, shape=(len(data),), data=data))

    assert packed("UINT32", [1, 256]) == b"\x01\0\0\0\0\x01\0\0"
    assert packed("INT16", [-2]) == b"\xfe\xff"
    assert packed("BOOL", [True, False]) == b"\x01\x00"
    assert packed("BYTES", ["hé", b"\xff"]) == b"\x03\0\0\0h\xc3\xa9\x01\0\0\0\xff"
    assert packed("FP16", [1.5, -2.0]) == struct.pack("<2e", 1.5, -2.0)
    assert packed("FP64", [0.1]) == struct.pack("<d", 0.1)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (-2.5, 0xC020),
        (1.00390625, 0x3F80),  # half of the way up: to the even one
        (1.01171875, 0x3F82),  # and here that one is above
        (3.4e38, 0x7F80),  # above all that it can hold
        (math.inf, 0x7F80),
    ],
)
def test_a_half_as_long_float_is_the_nearest(value, bits):
    raw = pack(Tensor(name="x", datatype="BF16", shape=(1,), data=[value]))
    assert raw == struct.pack("<H", bits)


def test_no_number_stays_none_in_half_the_bits():
    raw = pack(Tensor(name="x", datatype="BF16", shape=(1,), data=[math.nan]))
    assert math.isnan(unpack("x", "BF16", (1,), raw).data[0])


def test_rows_may_be_lists_in_lists():
    assert from_json("x", "FP32", [2, 2], [[1, 2.5], [3, 4]]).data.tolist() == [1, 2.5, 3, 4]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("FP32", (2,), [1.0], r"shape \[2\] has 2 elements, but there are 1"),
        ("FP8", (1,), [1.0], "must be one of BOOL, UINT8"),
        ("INT8", (1,), [128], "no INT8"),
        ("UINT8", (1,), [-1], "no UINT8"),
        ("INT32", (1,), [1.5], "no INT32"),
        ("INT32", (1,), [True], "no INT32"),
        ("FP32", (1,), ["1"], "no FP32"),
        ("BOOL", (1,), [1], "must be a bool"),
        ("BYTES", (1,), [1], "must be bytes or text"),
        ("BYTES", (2,), "ab", "one text"),
        ("FP32", (-1,), [], "whole numbers from 0"),
    ],
)
def test_a_tensor_that_is_none_is_refused_by_its_name(datatype, shape, data, words):
    with pytest.raises(LLMInvalidRequestError, match=words) as caught:
        Tensor(name="pixels", datatype=datatype, shape=shape, data=data)
    assert caught.value.param == "pixels"
    assert "'pixels'" in str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "words"),
    [
        ("INT32", [2], b"\0" * 7, "takes 8 bytes, but there are 7"),
        ("BOOL", [1], b"\2", "a byte 0 or 1"),
        ("BYTES", [1], b"\1\0\0", "within the length"),
        ("BYTES", [1], b"\5\0\0\0ab", "longer than its data"),
        ("BYTES", [2], b"\0\0\0\0", "2 elements, but there are 1"),
        ("INT8", [2**40], b"", "must be fewer"),
        ("INT8", [1] * 65, b"\0", "at most 64"),
    ],
)
def test_bytes_that_are_no_tensor_are_refused(datatype, shape, raw, words):
    with pytest.raises(LLMInvalidRequestError, match=words):
        unpack("x", datatype, shape, raw)


@pytest.mark.parametrize(
    ("values", "datatype", "shape"),
    [
        ([[1, 2, 3], [4, 5, 6]], "INT64", (2, 3)),
        ([1, 2.5], "FP32", (2,)),
        ([True], "BOOL", (1,)),
        (["a", b"b"], "BYTES", (2,)),
        ("alone", "BYTES", ()),
        ([], "FP32", (0,)),
    ],
)
def test_a_tensor_is_made_of_lists(values, datatype, shape):
    tensor = tensor_of("x", values)
    assert (tensor.datatype, tensor.shape) == (datatype, shape)
    assert tensor_of("x", [[1, 2]], "INT8").data.typecode == "b"


def test_an_array_of_numpys_says_its_own_type():
    numpy = pytest.importorskip("numpy")
    tensor = tensor_of("x", numpy.array([[1, 2]], dtype="uint16"))
    assert (tensor.datatype, tensor.shape, list(tensor.data)) == ("UINT16", (1, 2), [1, 2])


@pytest.mark.parametrize("values", [[[1, 2], [3]], [[1], 2], [1, [2]], [1, "a"], [None]])
def test_rows_that_do_not_fit_together_are_refused(values):
    with pytest.raises(LLMInvalidRequestError, match="'x'"):
        tensor_of("x", values)
