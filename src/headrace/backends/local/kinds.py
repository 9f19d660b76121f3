"""Which engine in the box runs a model on a device: a table, whose engines are loaded by first use.

A new engine is a row here and, in its own module, a function that opens it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias, cast

from attrs import frozen

from headrace.contracts.protocols import Backend
from headrace.net.clock import World
from headrace.stores.models.presets import PRESETS
from headrace.stores.models.schemes import is_uri

Opens: TypeAlias = Callable[[str, str, World], Awaitable[Backend]]
"""Starts an engine for a model (its name, path or URI) on a device (``0``, ``CPU``) and waits until
it answers."""


def _is_gguf(model: str) -> bool:
    if model.lower() in PRESETS:
        return True
    return model.endswith(".gguf") and (is_uri(model) or Path(model).expanduser().is_file())


def _is_folder_for(engine: str, model: str) -> bool:
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        return False
    from headrace.backends.local.folders.rows import engine_for

    return engine_for(folder).name == engine


@frozen(kw_only=True)
class LocalKind:
    """An engine for the models that it ``takes``, on devices of one ``family``.

    ``opens`` is ``module:function``, an Opens. ``needs`` is the package without which it does not
    run, and ``install`` what brings that. ``max_running`` calls run in it at once, and hold
    ``max_tokens`` tokens together where those are counted.
    """

    family: str
    engine: str
    opens: str
    takes: Callable[[str], bool]
    needs: str | None = None
    install: str = ""
    devices: tuple[str, ...] | None = None
    max_running: int = 8
    max_tokens: int | None = None

    @property
    def is_installed(self) -> bool:
        """Whether what it needs is here; imports none of it."""
        return self.needs is None or find_spec(self.needs) is not None

    def load(self) -> Opens:
        """The function that opens it."""
        module, _, name = self.opens.partition(":")
        return cast(Opens, getattr(import_module(module), name))


KV_TOKENS = 16384

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
        needs="openvino_genai",
        install="pip install openvino-genai",
        devices=("CPU",),
        max_tokens=KV_TOKENS,
    ),
    *(
        LocalKind(
            family=family,
            engine=engine,
            opens=f"headrace.backends.local.folders.opened:on_{family}",
            takes=partial(_is_folder_for, name),
            needs=needs,
            install=f"pip install 'headrace[{needs.removesuffix('runtime')}]'",
            devices=devices,
            max_running=16,
        )
        for name, engine, needs in (
            ("transformers", "transformers", "torch"),
            ("onnx", "ONNX Runtime", "onnxruntime"),
        )
        for family, devices in (("cpu", ("0",)), ("cuda", None))
    ),
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
