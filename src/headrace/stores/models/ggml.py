"""Weights as numbers of few bits, in ggml's types.

The ``gguf`` package writes the older types; those that share scales among 256 numbers (Q4_K and its
like) only ggml itself writes. It lies in xllamacpp's library, where its C function is asked.
https://github.com/ggml-org/ggml/blob/master/include/ggml.h
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

from headrace.contracts.errors import LLMCapabilityError

TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
"""Types that are written for any row of 32 numbers, or of any number of them."""

K_TYPES = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""Types for rows of 256 numbers, and what llama.cpp takes for other rows."""


def encoded(numbers: Any, kind: str) -> Any:
    """``numbers`` as the bytes of ggml's type ``kind``, row by row.

    Raises LLMCapabilityError where that type is not written here.
    """
    import gguf
    import numpy as np

    wanted = gguf.GGMLQuantizationType[kind]
    if kind in TYPES:
        written = gguf.quantize(np.ascontiguousarray(numbers), wanted)
        return written if written.dtype == np.uint8 else written.view(np.uint8)
    numbers = np.ascontiguousarray(numbers, np.float32)
    out = np.empty(gguf.quant_shape_to_byte_shape(numbers.shape, wanted), np.uint8)
    width = numbers.shape[-1]
    size = _quantize_chunk()(
        int(wanted), _floats(numbers), out.ctypes.data, 0, numbers.size // width, width, None
    )
    assert size == out.nbytes
    return out


def _floats(numbers: Any) -> Any:
    return numbers.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


@lru_cache(maxsize=1)
def _quantize_chunk() -> Any:
    import xllamacpp

    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    try:
        function = library.ggml_quantize_chunk
    except AttributeError as hidden:
        raise LLMCapabilityError(
            f"xllamacpp {xllamacpp.__version__} does not let us at ggml_quantize_chunk, without "
            f"which there are only {', '.join(TYPES)}"
        ) from hidden
    floats = ctypes.POINTER(ctypes.c_float)
    rows = ctypes.c_int64
    function.argtypes = (ctypes.c_int, floats, ctypes.c_void_p, rows, rows, rows, floats)
    function.restype = ctypes.c_size_t
    return function
