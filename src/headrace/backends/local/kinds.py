"""Which engine in the box runs a model on a device: a table, whose engines are loaded by first use.

A new engine is a row here and, in its own module, a function that opens it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias, cast

from attrs import frozen

from headrace.backends.local.folders.kinds import EMBED, GENERATE, kind_of
from headrace.backends.local.folders.rows import ONNX, TRANSFORMERS, FolderRow, engine_for
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.protocols import Backend
from headrace.net.clock import World
from headrace.stores.models.presets import PRESETS
from headrace.stores.models.schemes import is_uri

Makes: TypeAlias = Literal["chat", "embeddings"]
Opens: TypeAlias = Callable[[str, str, Makes, World], Awaitable[Backend]]
"""Starts an engine for a model (its name, path or URI) on a device (``cpu:0``, ``openvino:CPU``), for
what it shall make, and waits until it answers."""


def _is_gguf(model: str) -> bool:
    if model.lower() in PRESETS:
        return True
    return model.endswith(".gguf") and (is_uri(model) or Path(model).expanduser().is_file())


@frozen(kw_only=True)
class LocalKind:
    """An engine for the models that it ``takes``, on devices of one ``family``.

    ``opens`` is ``module:function``, an Opens. ``makes`` tells what a model of its own makes, where
    that is none of these it raises LLMInvalidRequestError. ``needs`` are the packages without which
    it does not run, and ``install`` what brings them. ``max_running`` calls run in it at once, and hold
    ``max_tokens`` tokens together where those are counted.
    """

    family: str
    engine: str
    opens: str
    takes: Callable[[str], bool]
    makes: Callable[[str], Makes] = lambda model: (
        "embeddings" if makes_embeddings(model) else "chat"
    )
    needs: tuple[str, ...] = ()
    install: str = ""
    devices: tuple[str, ...] | None = None
    max_running: int = 8
    max_tokens: int | None = None

    @property
    def is_installed(self) -> bool:
        """Whether what it needs is here; imports none of it."""
        return all(find_spec(package) is not None for package in self.needs)

    def load(self) -> Opens:
        """The function that opens it."""
        module, _, name = self.opens.partition(":")
        return cast(Opens, getattr(import_module(module), name))


KV_TOKENS = 16384


def _folder_kind(family: str, row: FolderRow) -> LocalKind:
    return LocalKind(
        family=family,
        engine=row.name,
        opens="headrace.backends.local.folders.opened:running_on",
        takes=lambda model: _is_folder(model) and engine_for(Path(model).expanduser()) is row,
        makes=_made_by_folder,
        needs=row.packages,
        install=f"pip install 'headrace[{row.extra}]'",
        devices=("0",) if family == "cpu" else None,
        max_running=16,
    )


def _is_folder(model: str) -> bool:
    folder = Path(model).expanduser()
    return model.lower() not in PRESETS and any(
        (folder / name).is_file() for name in ("config.json", "modules.json")
    )


def _made_by_folder(model: str) -> Makes:
    kind = kind_of(Path(model).expanduser())
    if kind not in (GENERATE, EMBED):
        raise LLMInvalidRequestError(
            f"model {model!r} makes {kind.makes}; a handler chats or makes embeddings: ask it as an "
            "engine, by Client(engine=...)",
            param="model",
        )
    return "chat" if kind is GENERATE else "embeddings"


KINDS: tuple[LocalKind, ...] = (
    LocalKind(
        family="cpu",
        engine="llama.cpp",
        opens="headrace.backends.local.boxed:llamacpp",
        takes=_is_gguf,
        devices=("0",),
        max_tokens=KV_TOKENS,
    ),
    LocalKind(
        family="openvino",
        engine="OpenVINO",
        opens="headrace.backends.local.boxed:openvino",
        takes=lambda model: _is_gguf(model) and not makes_embeddings(model),
        needs=("openvino_genai",),
        install="pip install openvino-genai",
        devices=("CPU",),
        max_tokens=KV_TOKENS,
    ),
    *(_folder_kind(family, row) for family in ("cpu", "cuda") for row in (TRANSFORMERS, ONNX)),
)


def makes_embeddings(model: str) -> bool:
    """Whether it is a known model, or one in a folder, that does, and nothing else."""
    preset = PRESETS.get(model.lower())
    if preset is not None:
        return preset.embeddings
    if not Path(model).expanduser().is_dir():
        return False
    from headrace.backends.local.folders.opened import makes_embeddings

    return makes_embeddings(model)


def kinds_for(model: str, family: str | None = None) -> tuple[LocalKind, ...]:
    """The engines for ``model``, whether they are installed or not, the best first."""
    return tuple(kind for kind in KINDS if family in (None, kind.family) and kind.takes(model))
