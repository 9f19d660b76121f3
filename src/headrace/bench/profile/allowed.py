"""Which files a profile that somebody asks for over HTTP may read: those below the roots alone."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.profiling import LLMProfileRequest

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
_DTYPES = ("bf16", "fp16", "fp32")
# Any other name may be that of code which is fetched from elsewhere.
_ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def device_of(request: LLMProfileRequest) -> str:
    """The device that ``request`` names, in one way of writing it; refuses what is none."""
    if not _DEVICE.fullmatch(request.device):
        raise LLMInvalidRequestError(
            f"device is {request.device!r}; cpu, cuda or cuda:N is needed", param="device"
        )
    return "cuda:0" if request.device == "cuda" else request.device


def check_request(
    request: LLMProfileRequest, roots: Sequence[Path], *, may_run_code: bool = False
) -> None:
    """Refuse what may not be read or run here; LLMInvalidRequestError says what would be right."""
    device_of(request)
    for name, known in (("dtype", _DTYPES), ("attention", _ATTENTIONS)):
        value = getattr(request, name)
        if value is not None and value not in known:
            raise LLMInvalidRequestError(
                f"{name} is {value!r}; {', '.join(known)} or null is needed", param=name
            )
    if request.trust_remote_code and not may_run_code:
        raise LLMInvalidRequestError(
            "trust_remote_code is true, and this server runs no code that comes with a model; "
            "profiles.allow_remote_code: true in its configuration allows it",
            param="trust_remote_code",
        )
    real = [Path(os.path.realpath(root)) for root in roots]
    _below("model_path", request.model_path, real)
    folder = _below("input_dir", request.input_dir, real)
    if not folder.is_dir():
        raise LLMInvalidRequestError(
            f"input_dir is {request.input_dir!r}, which is no directory; one that holds images, or "
            ".txt and .jsonl prompts, is needed",
            param="input_dir",
        )


def _below(name: str, given: str, roots: Sequence[Path]) -> Path:
    if "\0" in given:
        raise LLMInvalidRequestError(f"{name} holds a zero byte; a path is needed", param=name)
    found = Path(os.path.realpath(given))
    # First where it lies, then whether it is there: nobody learns what lies elsewhere.
    if not _is_below(found, roots):
        raise _outside(name, given, roots)
    if not found.exists():
        raise LLMInvalidRequestError(
            f"{name} is {given!r}; there is nothing on this server", param=name
        )
    for folder, folders, files in os.walk(found):
        for entry in (*folders, *files):
            path = Path(folder, entry)
            if path.is_symlink() and not _is_below(Path(os.path.realpath(path)), roots):
                raise _outside(name, str(path), roots)
    return found


def _is_below(path: Path, roots: Sequence[Path]) -> bool:
    return any(path == root or root in path.parents for root in roots)


def _outside(name: str, path: str, roots: Sequence[Path]) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"{name} is {path!r}, which does not lie under {' or '.join(map(str, roots))}; put it there, "
        "or add its place to profiles.roots in the server's configuration",
        param=name,
    )
