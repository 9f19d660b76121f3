"""Rewrite a GGUF file's weights from one type to another.

Run as a program (``python -m headrace.stores.models.requantise IN OUT FROM TO``), because the
arrays it needs would stay with the process that did it; prints ``done total`` per tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from headrace.stores.models.ggml import encoded

Kinds: TypeAlias = Mapping[str, str]
"""By a tensor's name: the type that its weights are to have."""

# Where most weights have this type, the file is said to be of that one (ggml's enum llama_ftype).
_FILE_TYPES = {
    "F32": "ALL_F32",
    "Q3_K": "MOSTLY_Q3_K_S",
    "Q4_K": "MOSTLY_Q4_K_S",
    "Q5_K": "MOSTLY_Q5_K_S",
}


def requantise(source: Path, target: Path, from_type: str, to_type: str) -> None:
    """Write ``source`` to ``target`` with its ``from_type`` tensors as ``to_type``; others as they are."""
    import gguf

    reader = gguf.GGUFReader(source)
    kinds = {t.name: to_type for t in reader.tensors if t.tensor_type.name == from_type}

    def tell(done: int, total: int) -> None:
        sys.stdout.write(f"{done} {total}\n")
        sys.stdout.flush()

    rewrite(reader, target, kinds, to_type, tell)


def rewrite(
    reader: Any, target: Path, kinds: Kinds, mostly: str, tell: Callable[[int, int], None]
) -> None:
    """Write a reader's file anew, one tensor at a time; what has no place in ``kinds`` stays as it is."""
    import gguf

    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(target, arch=architecture)
    written_anyway = {gguf.Keys.General.ARCHITECTURE, gguf.Keys.General.FILE_TYPE}
    for item in reader.fields.values():
        if item.name in written_anyway or item.name.startswith("GGUF."):
            continue
        kind = item.types[0]
        part_kind = item.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(item.name, item.contents(), kind, sub_type=part_kind)
    writer.add_file_type(int(gguf.LlamaFileType[_FILE_TYPES.get(mostly, f"MOSTLY_{mostly}")]))
    for tensor in reader.tensors:
        _announce(writer, tensor, kinds.get(tensor.name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, tensor in enumerate(reader.tensors, 1):
        data, wanted = tensor.data, kinds.get(tensor.name)
        if wanted is not None and wanted != tensor.tensor_type.name:
            data = encoded(gguf.dequantize(data, tensor.tensor_type), wanted)
        writer.write_tensor_data(data)
        tell(done, len(reader.tensors))
    writer.close()


def _announce(writer: Any, tensor: Any, wanted: str | None) -> None:
    import gguf
    import numpy as np

    data, kind = tensor.data, tensor.tensor_type
    shape, dtype, size = data.shape, data.dtype, data.nbytes
    if wanted is not None and wanted != kind.name:
        kind = gguf.GGMLQuantizationType[wanted]
        numbers = tuple(int(count) for count in reversed(tensor.shape))
        shape, dtype = gguf.quant_shape_to_byte_shape(numbers, kind), np.dtype(np.uint8)
        size = int(np.prod(shape))
    writer.add_tensor_info(tensor.name, shape, dtype, size, raw_dtype=kind)


if __name__ == "__main__":
    requantise(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
