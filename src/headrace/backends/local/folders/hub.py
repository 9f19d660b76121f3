"""A model's folder on this machine, brought from the Hugging Face hub where its name there was given."""

from __future__ import annotations

from pathlib import Path

from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

# Weights in other forms than these are never looked at, so they are not fetched either.
_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*.onnx", "*.onnx_data")


def folder_of(model: str, *, with_code: bool) -> Path:
    """``model`` itself where it is a folder, else that of the hub's model of that name, once it is
    here.

    Raises LLMUnavailableError where the hub cannot be reached, LLMInvalidRequestError where it has
    no such model.
    """
    folder = Path(model)
    if folder.is_absolute():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [*_FILES, "*.py"] if with_code else [*_FILES]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except LocalEntryNotFoundError as unreachable:
        raise LLMUnavailableError(
            f"model {model!r} is not in the cache of the Hugging Face hub, and the hub cannot be "
            f"reached: {unreachable}"
        ) from unreachable
    except HfHubHTTPError as refusal:
        raise LLMInvalidRequestError(
            f"the Hugging Face hub does not give model {model!r}: {refusal}", param="model"
        ) from refusal
