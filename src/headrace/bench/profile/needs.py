"""What a profile needs beyond our own dependencies; without it one line says what to install."""

from __future__ import annotations

import importlib
from typing import Any

from headrace.contracts.errors import LLMCapabilityError


def torch() -> Any:
    return _needed("torch", "profiling a model")


def transformers() -> Any:
    return _needed("transformers", "profiling a model")


def pillow() -> Any:
    return _needed("PIL.Image", "reading pictures")


def accelerate() -> Any:
    return _needed("accelerate", "loading a GGUF file into transformers")


def _needed(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name not in {module, module.partition(".")[0]}:
            raise
        package = {"PIL.Image": "pillow"}.get(module, module)
        raise LLMCapabilityError(
            f"{what} needs {package}, which is not installed: pip install 'headrace[torch]'"
        ) from missing
