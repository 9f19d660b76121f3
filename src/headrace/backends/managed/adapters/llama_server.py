"""llama.cpp's server: the program of that name, or else the one in the wheel that we depend on."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.backends.managed.adapters.program import Program, Serve
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.stores.models import PRESETS, ModelStore

# How full it is, at /metrics.
_TOLD = ("--metrics",)


def _serve(model: str) -> Serve:
    path = Path(model)
    if path.is_file():
        return Serve(("--model", str(path.absolute()), "--alias", path.stem, *_TOLD), path.stem)
    if model.lower() in PRESETS:
        found = ModelStore().find(model, lambda what, done, total: None)
        return Serve(("--model", str(found.path), "--alias", model, *_TOLD), model)
    if "/" in model and not path.exists():
        return Serve(("--hf-repo", model, "--alias", model, *_TOLD), model)
    raise LLMInvalidRequestError(
        f"model is {model!r}, which is no GGUF file, no model known by name ({', '.join(PRESETS)}) "
        "and no owner/name[:quantisation] of Hugging Face",
        param="model",
    )


def _other_names(model: str) -> tuple[str, ...]:
    """What it calls a file if nobody gave it a name: older versions the path, newer ones the stem."""
    return (Path(model).stem,) if model.endswith(".gguf") else ()


# https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
LLAMA_SERVER = Program(
    names=("llama-server",),
    provider="llama-server",
    default_port=8080,
    program="llama-server",
    install="https://github.com/ggml-org/llama.cpp/releases, or pip install xllamacpp",
    serve=_serve,
    beside=lambda: (sys.executable, "-m", "headrace.backends.managed.llama_server"),
    model_flags=("--model", "--hf-repo", "-m", "-hf"),
    name_flag="--alias",
    key_variable="LLAMA_API_KEY",
    flags={"max_model_len": "--ctx-size", "reasoning_parser": "--reasoning-format"},
    other_names=_other_names,
)
