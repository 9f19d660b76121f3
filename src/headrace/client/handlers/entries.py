"""What handlers there can be: what is in the box, and what was registered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, get_args

from attrs import field, frozen

from headrace.backends.local.kinds import KINDS, LocalKind, Makes, kinds_for
from headrace.client.handlers.types import EndpointType, read_type
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMEndpointNotFoundError, LLMInvalidRequestError
from headrace.contracts.protocols import Backend, Embedder
from headrace.stores.models.presets import PRESETS

Task: TypeAlias = Makes


@frozen(kw_only=True, eq=False)
class Entry:
    """One model by one type, and who answers: exactly one of the last five.

    ``remote`` is the first part of the name by which a client finds whom to ask.
    """

    model: str
    type: EndpointType
    task: Task = "chat"
    kind: LocalKind | None = None
    remote: str | None = None
    backend: Backend | None = field(default=None, repr=False)
    engine: EngineConfig | None = None
    call: Callable[..., Any] | None = None


class Entries:
    """All that were registered in this process, over what is there anyway."""

    def __init__(self) -> None:
        self._registered: dict[str, dict[EndpointType, Entry]] = {}
        self._lock = threading.Lock()

    def add(self, entry: Entry, *, replace: bool) -> Entry | None:
        """Have ``entry`` known; the one that it has replaced."""
        with self._lock:
            of_model = self._registered.setdefault(entry.model, {})
            before = of_model.get(entry.type)
            if before is not None and not replace:
                raise LLMInvalidRequestError(
                    f"{entry.model!r} has an endpoint {entry.type} already; choose another type, or "
                    "say replace=True",
                    param="endpoint_type",
                )
            of_model[entry.type] = entry
            return before

    def remove(self, model: str, type: EndpointType) -> Entry:
        """Have it known no more; raises LLMEndpointNotFoundError where it was not registered."""
        with self._lock:
            entry = self._registered.get(model, {}).pop(type, None)
            if entry is None:
                raise LLMEndpointNotFoundError(
                    f"no endpoint {type} was registered for {model!r}", param="endpoint_type"
                )
            if not self._registered[model]:
                del self._registered[model]
            return entry

    def _renew_lock(self) -> None:
        """Let nobody be held up by who is not in this process."""
        self._lock = threading.Lock()

    def models(self) -> list[str]:
        """Those that are in the box, and those that were registered."""
        return list(dict.fromkeys((*PRESETS, *tuple(self._registered))))

    def types_of(self, model: str) -> list[str]:
        """The types of ``model`` that can be had here."""
        found = [str(type) for type in tuple(self._registered.get(model, ()))]
        for kind in kinds_for(model) if model in PRESETS else ():
            if kind.is_installed and kind.devices is not None:
                found += [f"{kind.family}:{device}" for device in kind.devices]
        return list(dict.fromkeys(found))

    def find(self, model: str, type: EndpointType) -> Entry:
        """The entry; raises LLMEndpointNotFoundError that says what there is, or what to do."""
        known = self._registered.get(model, {}).get(type)
        if known is not None:
            return known
        if type.family == "remote":
            return remote_entry(model, type, None)
        if model not in PRESETS:
            raise self._unknown_model(model, type)
        return local_entry(model, type, None)

    def _unknown_model(self, model: str, type: EndpointType) -> LLMEndpointNotFoundError:
        types = self.types_of(model)
        if types:
            return LLMEndpointNotFoundError(
                f"{model!r} has no endpoint {type}; it has {', '.join(types)}",
                param="endpoint_type",
            )
        from difflib import get_close_matches

        known = self.models()
        near = get_close_matches(str(model), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return LLMEndpointNotFoundError(
            f"there is no endpoint for {model!r}; {hint}known: {', '.join(known)}. Register another "
            "one with register_endpoint, or ask remote:<backend>",
            param="model",
        )


def entry_of(
    model: Any,
    endpoint_type: Any,
    *,
    task: str | None,
    backend: Any,
    engine: Any,
    callable: Any,
) -> Entry:
    """What register_endpoint is told, looked through; raises LLMInvalidRequestError."""
    if not isinstance(model, str) or not model.strip():
        raise LLMInvalidRequestError(f"model is {model!r}; a name is needed", param="model")
    if task is not None and task not in get_args(Task):
        raise LLMInvalidRequestError(
            f"task is {task!r}, must be {' or '.join(get_args(Task))}", param="task"
        )
    type, chosen = read_type(endpoint_type), _chosen_task(task)
    given = {"backend": backend, "engine": engine, "callable": callable}
    told = [name for name, value in given.items() if value is not None]
    if len(told) > 1:
        raise LLMInvalidRequestError(
            f"{' and '.join(told)} are given; one of them answers", param=told[1]
        )
    if callable is not None:
        if not hasattr(callable, "__call__"):  # noqa: B004  callable() is hidden by the argument
            raise _wrong("callable", callable, "something that can be called")
        return Entry(model=model, type=type, task=chosen or "chat", call=callable)
    if backend is not None:
        if not hasattr(backend, "stream") or not hasattr(backend, "aclose"):
            raise _wrong("backend", backend, "a Backend: name, stream, models, status and aclose")
        embeds = isinstance(backend, Embedder)
        if chosen == "embeddings" and not embeds:
            raise _wrong("backend", backend, "a Backend with embed, to make embeddings")
        return Entry(model=model, type=type, task=chosen or "chat", backend=backend)
    if engine is not None:
        from headrace.client.registry import get_engine_config

        config = get_engine_config(engine) if isinstance(engine, str) else engine
        if not isinstance(config, EngineConfig):
            raise _wrong("engine", engine, "an EngineConfig, or the name of a registered engine")
        return Entry(model=model, type=type, task=chosen or "chat", engine=config)
    if type.family == "remote":
        return remote_entry(model, type, chosen)
    return local_entry(model, type, chosen)


def remote_entry(model: str, type: EndpointType, task: Task | None) -> Entry:
    """One whose model a provider has, or an endpoint that was made by that name."""
    from headrace.backends.capabilities import capabilities_of
    from headrace.backends.providers import providers
    from headrace.client.handlers.running import has_endpoint

    row = providers().get(type.place)
    if row is None and not has_endpoint(type.place):
        from difflib import get_close_matches

        near = get_close_matches(type.place, providers(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise LLMEndpointNotFoundError(
            f"remote:{type.place} names no provider and no endpoint that was registered; {hint}"
            f"known: {', '.join(sorted(providers()))}",
            param="endpoint_type",
        )
    if task is None:
        makes = row is not None and capabilities_of(row, model).embeddings
        task = "embeddings" if makes else "chat"
    return Entry(model=model, type=type, task=task, remote=type.place)


def local_entry(model: str, type: EndpointType, task: Task | None) -> Entry:
    """One that runs in the box; raises LLMEndpointNotFoundError where none can."""
    taking = kinds_for(model, type.family)
    if type.family == "cuda":
        _require_cuda(type)
    if not taking:
        others = [kind for kind in kinds_for(model) if kind.is_installed]
        has = ", ".join(f"{each.family}:{(each.devices or '0')[0]}" for each in others)
        engines = ", ".join(kind.engine for kind in KINDS if kind.family == type.family)
        of_family = f"none of its engines ({engines}) takes it" if engines else "no engine does"
        is_file = model in PRESETS or Path(model).expanduser().exists()
        missing = (
            "" if is_file else "; it is neither a known name nor a file or folder that is here"
        )
        raise LLMEndpointNotFoundError(
            f"{model!r} has no endpoint {type}: {of_family}"
            + (f"; it has {has}" if has else missing),
            param="endpoint_type",
        )
    kind = next((each for each in taking if each.is_installed), None)
    if kind is None:
        raise LLMEndpointNotFoundError(
            f"{type} needs {taking[0].engine}, which is not installed: {taking[0].install}",
            param="endpoint_type",
        )
    if kind.devices is not None and type.place not in kind.devices:
        raise LLMEndpointNotFoundError(
            f"{kind.engine} has no device {type.place!r} here; there is "
            f"{', '.join(f'{kind.family}:{device}' for device in kind.devices)}",
            param="endpoint_type",
        )
    made = kind.makes(model)
    is_known = model in PRESETS or kind.engine != "llama.cpp"  # a GGUF file does not say it
    if type.family == "openvino" and task == "embeddings":
        raise LLMInvalidRequestError(
            "task is 'embeddings', but OpenVINO writes text here; ask cpu:0", param="task"
        )
    if task is not None and is_known and task != made:
        raise LLMInvalidRequestError(
            f"task is {task!r}, but {model} was made for {made}", param="task"
        )
    return Entry(model=model, type=type, task=task or made, kind=kind)


def _require_cuda(type: EndpointType) -> None:
    if not Path(f"/dev/nvidia{type.place}").exists():
        raise LLMEndpointNotFoundError(
            f"no CUDA device {type.place} is here (there is no /dev/nvidia{type.place}): ask cpu:0 "
            "or remote:<backend>, or run this where an NVIDIA driver is installed",
            param="endpoint_type",
        )


def _chosen_task(task: str | None) -> Task | None:
    return "embeddings" if task == "embeddings" else "chat" if task == "chat" else None


def _wrong(name: str, value: object, right: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"{name} is a {type(value).__name__}; {right} is needed", param=name
    )


ENTRIES = Entries()
