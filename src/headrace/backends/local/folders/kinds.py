"""Which kind of model a folder holds, by its own files: one row a kind, and the words it is known by.

Read by both sides, so it imports nothing heavy and reads small JSON files only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError

_MOST_JSON_BYTES = 8 << 20


@frozen(kw_only=True)
class Kind:
    """One kind of model.

    ``architectures`` are the endings of the class names that its configuration may have.
    ``makes`` is what it makes, in words.
    """

    name: str
    architectures: tuple[str, ...]
    makes: str


GENERATE = Kind(
    name="generate",
    architectures=("ForCausalLM", "LMHeadModel"),
    makes="text",
)
EMBED = Kind(
    name="embed",
    architectures=("Model", "ForMaskedLM", "ForPreTraining"),
    makes="embeddings",
)
RERANK = Kind(
    name="rerank",
    architectures=("ForSequenceClassification",),
    makes="scores of documents",
)
CLASSIFY = Kind(
    name="classify",
    architectures=("ForSequenceClassification",),
    makes="classes of texts",
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (GENERATE, EMBED, RERANK, CLASSIFY)}
"""Every kind by its name; the first of which an architecture has the ending is the one."""


def kind_of(folder: Path) -> Kind:
    """The kind of the model in ``folder``; raises LLMInvalidRequestError where it has none of these.

    A folder of sentence-transformers makes embeddings, whatever its model was made for. A classifier
    of one label scores documents.
    """
    if (folder / "modules.json").is_file():
        return EMBED
    config = read_json(folder / "config.json")
    said = config.get("architectures")
    names = [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
    for name in names:
        for kind in KINDS.values():
            if name.endswith(kind.architectures):
                return CLASSIFY if kind is RERANK and len(labels_of(folder)) > 1 else kind
    raise LLMInvalidRequestError(
        f"model {str(folder)!r} is a {' or '.join(names) or 'model of no named architecture'} "
        f"(config.json, architectures), and what can be computed here ends with "
        f"{', '.join(dict.fromkeys(end for kind in KINDS.values() for end in kind.architectures))}",
        param="model",
    )


def labels_of(folder: Path) -> tuple[str, ...]:
    """The labels of the classifier in ``folder``, in the order of its scores."""
    config = read_json(folder / "config.json")
    named = config.get("id2label")
    if isinstance(named, dict):
        return tuple(str(named[key]) for key in sorted(named, key=_place))
    count = config.get("num_labels")
    # A configuration without either is of two, as transformers has it.
    return tuple(f"LABEL_{i}" for i in range(count if isinstance(count, int) else 2))


def _place(key: str) -> tuple[int, str]:
    return (int(key), "") if key.isdecimal() else (1 << 31, key)


def read_json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    """The mapping in the file at ``path``; empty where there is none and none is ``needed``."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise LLMInvalidRequestError(f"{path} is larger than {_MOST_JSON_BYTES} bytes")
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        if not needed:
            return {}
        raise LLMInvalidRequestError(
            f"model {str(path.parent)!r} has no {path.name}; a folder as save_pretrained writes it "
            "is needed",
            param="model",
        ) from missing
    except (OSError, ValueError) as unreadable:
        raise LLMInvalidRequestError(f"{path} cannot be read: {unreadable}", param="model") from (
            unreadable
        )
    if not isinstance(read, dict):
        raise LLMInvalidRequestError(
            f"{path} holds a {type(read).__name__}, must be an object", param="model"
        )
    return read
