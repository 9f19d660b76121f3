"""The engines that take a model's folder, one row each, and what may be said of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePath

from attrs import fields, frozen

from headrace.backends.local.folders.kinds import KINDS
from headrace.backends.managed.launch import ProgramMissingError
from headrace.backends.row import Provider
from headrace.backends.rows import ENGINE
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire.openai_params import OWN_FIELDS

_OPTIONS = frozenset({"chat_template_kwargs", "grammar", "ignore_eos", "json_schema"})
_DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# Of what may be said of any engine, that which has no meaning for a child of ours.
_NOT_OURS = {
    "endpoint": "it is started here",
    "api_key": "only its parent reaches it",
    "api_key_env": "only its parent reaches it",
    "port": "it listens on none",
    "command": "it has one of its own",
    "extra_serve_flags": "it has no flags",
    "gpu_memory_utilization": "it takes what its model needs",
    "tensor_parallel_size": "it computes on one device; say device",
    "enable_reasoning": "it tells reasoning by the model's own marks",
    "reasoning_parser": "it tells reasoning by the model's own marks",
}


@frozen(kw_only=True)
class FolderRow:
    """One such engine: the packages that its child imports, and the extra that brings them.

    ``lacks`` are settings of EngineConfig that it has nothing for.
    """

    name: str
    packages: tuple[str, ...]
    extra: str
    dtypes: tuple[str, ...] = ()
    lacks: frozenset[str] = frozenset()

    @property
    def provider(self) -> Provider:
        """The row of what it makes of requests."""
        return _PROVIDERS[self.name]

    def is_installed(self) -> bool:
        """Whether its packages are here; imports none of them."""
        return all(find_spec(package) is not None for package in self.packages)


TRANSFORMERS = FolderRow(
    name="transformers",
    packages=("torch", "transformers"),
    extra="torch",
    dtypes=("auto", "bfloat16", "float16", "float32"),
)
ONNX = FolderRow(
    name="onnx",
    packages=("onnxruntime", "tokenizers", "numpy"),
    extra="onnx",
    lacks=frozenset({"attention", "dtype", "trust_remote_code"}),
)
FOLDER_ENGINES: Mapping[str, FolderRow] = {row.name: row for row in (TRANSFORMERS, ONNX)}
"""Each by the value of ``EngineConfig.backend`` that means it."""

_PROVIDERS = {
    name: Provider(
        name=name,
        chat_path=None,
        completions_path=None,
        unsupported=frozenset({"best_of", "suffix"}),
        options=_OPTIONS,
        ignored=OWN_FIELDS | {"user"},
        echoes=False,
        structured=ENGINE,
    )
    for name in FOLDER_ENGINES
}


def check_folder_engine(config: EngineConfig) -> None:
    """Raises LLMInvalidRequestError that names the field where ``config`` cannot be carried out."""
    row = FOLDER_ENGINES[config.backend]
    for each in fields(EngineConfig):
        value = getattr(config, each.name)
        if each.name in _NOT_OURS and value != each.default:
            shown = "given" if each.name == "api_key" else repr(value)
            raise _wrong(config, each.name, f"is {shown}; leave it out: {_NOT_OURS[each.name]}")
        if each.name in row.lacks and value not in (None, False):
            raise _wrong(config, each.name, f"is {value!r}, and {row.name} has no such setting")
    if config.device is not None and not _DEVICE.fullmatch(config.device):
        raise _wrong(config, "device", f"is {config.device!r}; cpu, cuda or cuda:0 is needed")
    if config.dtype is not None and config.dtype not in row.dtypes:
        raise _wrong(
            config, "dtype", f"is {config.dtype!r}; one of {', '.join(row.dtypes)} is needed"
        )
    if config.task is not None and config.task not in KINDS:
        raise _wrong(config, "task", f"is {config.task!r}; one of {', '.join(KINDS)} is needed")


def model_of(config: EngineConfig) -> str:
    """The model's folder as an absolute path, or its name on the Hugging Face hub.

    Raises LLMInvalidRequestError where it is neither.
    """
    path = Path(config.model).expanduser()
    if path.is_dir():
        return str(path.absolute())
    if path.exists():
        raise _wrong(
            config,
            "model",
            f"is {config.model!r}, which is a file; the folder of a model is needed",
        )
    if PurePath(config.model).is_absolute() or not _HUB_NAME.fullmatch(config.model):
        raise _wrong(
            config,
            "model",
            f"is {config.model!r}, which is no folder here and no owner/name of the Hugging Face "
            "hub",
        )
    return config.model


def engine_for(folder: Path) -> FolderRow:
    """The engine that takes what lies in ``folder``: weights, or else a graph."""
    has_graph = any((place / "model.onnx").is_file() for place in (folder, folder / "onnx"))
    return ONNX if has_graph and not any(folder.glob("*.safetensors")) else TRANSFORMERS


def name_of(folder: Path) -> str:
    """The folder's own name, as far as an engine's may be like it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("._-")[:64] or "model"


def require_installed(config: EngineConfig) -> None:
    """Raises ProgramMissingError with the pip line where its packages are not here."""
    row = FOLDER_ENGINES[config.backend]
    if config.program is None and not row.is_installed():
        raise ProgramMissingError(
            f"engine {config.name!r}: {' and '.join(row.packages)} are needed, and not all are "
            f"installed: pip install 'headrace[{row.extra}]'; or name as program a Python that has "
            "them and headrace",
            param="backend",
        )


def _wrong(config: EngineConfig, name: str, what: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"engine {config.name!r}: {name} {what}", param=name)
