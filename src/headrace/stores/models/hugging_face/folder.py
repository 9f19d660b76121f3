"""A folder as Hugging Face's programs load one, written from a GGUF file: whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.stores.models.gguf_header import open_weights, read_header, read_tensors
from headrace.stores.models.hugging_face.config import read_config, read_generation
from headrace.stores.models.hugging_face.tokenizer import (
    read_special,
    read_tokenizer,
    read_tokenizer_config,
)
from headrace.stores.models.hugging_face.weights import (
    DTYPES,
    ROPE_FACTORS,
    name_tensors,
    values,
    write_weights,
)
from headrace.stores.models.store import Progress


@frozen(kw_only=True)
class Exported:
    """A folder that was written. ``notes`` tell what its users should know."""

    folder: str
    architecture: str
    dtype: str
    parameters: int
    files: Mapping[str, int]
    notes: tuple[str, ...] = ()


def export_folder(source: Path, folder: Path, dtype: str, progress: Progress) -> Exported:
    """Write the model in the GGUF file ``source`` to the new ``folder``, its numbers as ``dtype``.

    Raises LLMInvalidRequestError for a folder that is there already or a dtype that is none,
    LLMCapabilityError for a model that cannot be exported.
    """
    if dtype not in DTYPES:
        raise LLMInvalidRequestError(
            f"dtype is {dtype!r}; it must be {', '.join(DTYPES)}", param="dtype"
        )
    if folder.exists():
        raise LLMInvalidRequestError(
            f"{folder} is there already and is left as it is; remove it, or name another folder",
            param="folder",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as refused:
        raise LLMInvalidRequestError(
            f"{folder} cannot be written: {refused.strerror}", param="folder"
        ) from refused
    try:
        exported = _write(source, made, dtype, progress)
        made.chmod(0o755)  # a temporary folder is for its owner alone
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made)
        raise
    return Exported(folder=str(folder), **exported)


def _write(source: Path, made: Path, dtype: str, progress: Progress) -> dict[str, Any]:
    metadata, tensors = read_header(source), read_tensors(source)
    found = {tensor.name: tensor for tensor in open_weights(source).tensors}
    factors = values(found[ROPE_FACTORS]).tolist() if ROPE_FACTORS in found else None
    config = read_config(metadata, tensors, dtype=DTYPES[dtype], rope_factors=factors)
    written = name_tensors(found, config)
    settings = read_tokenizer_config(metadata, config["max_position_embeddings"])
    files = {
        "config.json": config,
        "generation_config.json": read_generation(metadata, config),
        "tokenizer.json": read_tokenizer(metadata),
        "tokenizer_config.json": settings,
        "special_tokens_map.json": read_special(metadata),
    }
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (made / name).write_text(text, encoding="utf-8")
    write_weights(made / "model.safetensors", written, dtype, progress)
    notes = []
    if "chat_template" not in settings:
        notes.append("the file has no chat template: a server needs one to answer chat")
    return {
        "architecture": config["architectures"][0],
        "dtype": dtype,
        "parameters": sum(int(tensor.source.n_elements) for tensor in written),
        "files": {path.name: path.stat().st_size for path in sorted(made.iterdir())},
        "notes": tuple(notes),
    }
