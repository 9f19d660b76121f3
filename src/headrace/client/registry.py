"""The engines that this process knows by name: put in by Python calls and YAML files."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from headrace.contracts.engine_entries import engine_of, read_engines
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMEngineNotFoundError, LLMInvalidRequestError

_engines: dict[str, EngineConfig] = {}
_lock = threading.Lock()


def register_engine(*, replace: bool = False, **fields: Any) -> EngineConfig:
    """Have an engine known by its name; ``fields`` are those of EngineConfig.

    ``env`` is another name for ``extra_env``, and ``persistent=True`` is ``lazy=False``. Nothing is
    started. Raises LLMInvalidRequestError that names the field, its value and what would be right,
    and where there is another engine of that name, unless ``replace`` is given.
    """
    config = engine_of(fields)
    _add((config,), replace=replace)
    return config


def load_engines(path: str | Path, *, replace: bool = False) -> tuple[EngineConfig, ...]:
    """Have the engines known that the YAML file at ``path`` describes.

    They stand in it under ``engines``, or are all of it: a list of mappings, each with ``name`` and
    ``model``, or a mapping from names to the other fields. Raises LLMInvalidRequestError that names
    the file, the line and the field; then none of them is known.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        raise LLMInvalidRequestError(
            f"the engines in {str(path)!r} cannot be read: {unreadable}"
        ) from unreadable
    configs = read_engines(text, str(path), EngineConfig)
    _add(configs, replace=replace)
    return configs


def get_engine_config(name: str) -> EngineConfig:
    """The engine of that name; LLMEngineNotFoundError, which is a KeyError, names near ones."""
    config = _engines.get(name)
    if config is None:
        raise unknown_engine(name, list(_engines))
    return config


def unregister_engine(name: str) -> EngineConfig:
    """Have it known no more; what ``headrace.generate`` started of it is ended."""
    config = get_engine_config(name)
    from headrace.client.engine import forget

    forget(name)
    with _lock:
        _engines.pop(name, None)
    return config


def unknown_engine(name: str, known: list[str]) -> LLMEngineNotFoundError:
    """What is said where there is no engine of that name among those ``known``."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    there = f"known: {', '.join(sorted(known))}" if known else "none is registered"
    return LLMEngineNotFoundError(f"there is no engine {name!r}; {hint}{there}", param="engine")


def _add(configs: tuple[EngineConfig, ...], *, replace: bool) -> None:
    from headrace.backends.managed.opening import check_engine

    for config in configs:
        check_engine(config)
    with _lock:
        changed = [each for each in configs if _engines.get(each.name, each) != each]
        if changed and not replace:
            raise LLMInvalidRequestError(
                f"there is another engine {changed[0].name!r} already; choose another name, or say "
                "replace=True",
                param="name",
            )
        _engines.update({each.name: each for each in configs})
    from headrace.client.engine import forget

    for each in changed:
        forget(each.name)
