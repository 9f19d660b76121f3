"""A GGUF file's matrices in another type: which of them, and in which where a row has no room."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.stores.models.ggml import K_TYPES, TYPES
from headrace.stores.models.gguf_header import open_weights
from headrace.stores.models.requantise import rewrite
from headrace.stores.models.store import Progress

# Small, and looked up or decided by: in few bits they save nothing and spoil much, so that
# llama.cpp leaves them as they are.
_KEPT = re.compile(r"(position_embd|token_types|.*ffn_gate_inp|.*(ssm_conv1d|shortconv\.conv))\.")


@frozen(kw_only=True)
class Quantised:
    """A file that was written. ``notes`` tell which matrices have another type than was asked for."""

    file: str
    weight_type: str
    tensors: int
    rewritten: int
    source_bytes: int
    size_bytes: int
    notes: tuple[str, ...] = ()


def quantise_file(source: Path, target: Path, weight_type: str, progress: Progress) -> Quantised:
    """Write the GGUF file ``source`` to the new file ``target``, its matrices as ``weight_type``.

    Raises LLMInvalidRequestError for a type that is none or a file that is there already,
    LLMCapabilityError for weights that cannot be read.
    """
    wanted = weight_type.upper()
    if wanted not in TYPES and wanted not in K_TYPES:
        raise LLMInvalidRequestError(
            f"the type is {weight_type!r}; it must be {', '.join((*TYPES, *K_TYPES))}", param="type"
        )
    if target.exists():
        raise LLMInvalidRequestError(
            f"{target} is there already and is left as it is; remove it, or name another file",
            param="output",
        )
    reader = open_weights(source)
    kinds = {t.name: _fitting(t, wanted) for t in reader.tensors if _is_matrix(t)}
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            made = Path(folder) / target.name
            label = f"Writing the weights as {wanted}"
            rewrite(reader, made, kinds, wanted, lambda done, total: progress(label, done, total))
            made.rename(target)
    except NotImplementedError as unknown:
        raise LLMCapabilityError(f"{source} cannot be rewritten: {unknown}") from unknown
    except OSError as refused:
        raise LLMInvalidRequestError(
            f"{target} cannot be written: {refused.strerror}", param="output"
        ) from refused
    instead = Counter(kind for kind in kinds.values() if kind != wanted)
    return Quantised(
        file=str(target),
        weight_type=wanted,
        tensors=len(reader.tensors),
        rewritten=sum(kind == wanted for kind in kinds.values()),
        source_bytes=source.stat().st_size,
        size_bytes=target.stat().st_size,
        notes=tuple(
            f"{count} are in {kind}: their rows are no multiple of {_block(wanted)} numbers"
            for kind, count in instead.items()
        ),
    )


def _is_matrix(tensor: Any) -> bool:
    return (
        len(tensor.shape) > 1
        and tensor.name.endswith(".weight")
        and "_norm." not in tensor.name
        and _KEPT.match(tensor.name) is None
    )


def _fitting(tensor: Any, wanted: str) -> str:
    """The type that its rows have room for."""
    width = int(tensor.shape[0])
    for kind in (wanted, K_TYPES.get(wanted, wanted)):
        if width % _block(kind) == 0:
            return kind
    return "F16"


def _block(kind: str) -> int:
    import gguf

    return int(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0])
