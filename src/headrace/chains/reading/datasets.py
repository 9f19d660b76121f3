"""Datasets as Hugging Face's library saves them: a folder of Arrow streams, and what they are.

https://huggingface.co/docs/datasets/main/en/process#save
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from msgspec import DecodeError, json

from headrace.chains.reading.arrow import of_arrow
from headrace.contracts.errors import LLMInvalidRequestError


def shards_of(folder: Path) -> tuple[Path, ...] | None:
    """The files of a saved dataset, in the order of its rows; None where ``folder`` is none."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = [str(each) for each in _list(_read(splits), "splits", splits)]
        raise LLMInvalidRequestError(
            f"input is {str(folder)!r}, a dataset of several splits; name one of them: "
            f"{', '.join(str(folder / each) for each in names)}",
            param="input",
        )
    state = folder / "state.json"
    if not state.is_file() or not (folder / "dataset_info.json").is_file():
        return None
    said = _read(state)
    if said.get("_indices_data_files"):
        raise LLMInvalidRequestError(
            f"input is {str(folder)!r}, a dataset with an order of its own beside its files; call "
            "flatten_indices() on it and save it again",
            param="input",
        )
    names = [each["filename"] for each in _list(said, "_data_files", state)]
    for name in names:
        if PurePath(name).name != name:
            raise LLMInvalidRequestError(
                f"{state} names the file {name!r}, which is not beside it", param="input"
            )
        if not (folder / name).is_file():
            raise LLMInvalidRequestError(
                f"{state} names the file {name!r}, which is not there", param="input"
            )
    return tuple(folder / name for name in names)


def of_dataset(shards: tuple[Path, ...]) -> Iterator[object]:
    """The rows of a saved dataset."""
    for path in shards:
        yield from of_arrow(path, path.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.decode(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise LLMInvalidRequestError(f"{path} cannot be read: {error}", param="input") from error
    if not isinstance(found, dict):
        raise LLMInvalidRequestError(f"{path} is no JSON object", param="input")
    return found


def _list(said: dict[str, Any], name: str, path: Path) -> list[Any]:
    found = said.get(name)
    if not isinstance(found, list):
        raise LLMInvalidRequestError(f"{path} has no list {name!r}", param="input")
    return found
