"""Rewrite a GGUF file's weights from one type to another.

Run as a program (``python -m headrace.stores.models.requantise IN OUT FROM TO``), because the
arrays it needs would stay with the process that did it; prints ``done total`` per tensor.
"""

from __future__ import annotations

import sys
from pathlib import Path


def requantise(source: Path, target: Path, from_type: str, to_type: str) -> None:
    """Write ``source`` to ``target`` with its ``from_type`` tensors as ``to_type``; others as they are."""
    import gguf

    old, new = gguf.GGMLQuantizationType[from_type], gguf.GGMLQuantizationType[to_type]
    reader = gguf.GGUFReader(source)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(target, arch=architecture)
    written_anyway = {gguf.Keys.General.ARCHITECTURE, gguf.Keys.General.FILE_TYPE}
    for item in reader.fields.values():
        if item.name in written_anyway or item.name.startswith("GGUF."):
            continue
        kind = item.types[0]
        part_kind = item.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(item.name, item.contents(), kind, sub_type=part_kind)
    writer.add_file_type(int(gguf.LlamaFileType[f"MOSTLY_{to_type}"]))
    for done, tensor in enumerate(reader.tensors, 1):
        data, data_type = tensor.data, tensor.tensor_type
        if data_type == old:
            data, data_type = gguf.quantize(gguf.dequantize(data, old), new), new
        writer.add_tensor(tensor.name, data, raw_dtype=data_type)
        sys.stdout.write(f"{done} {len(reader.tensors)}\n")
        sys.stdout.flush()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    requantise(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
