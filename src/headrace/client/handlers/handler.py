"""Handlers: one model by one way, to be called; and the mapping that has them all."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, overload

from headrace.client.handlers.asked import as_chat, as_inputs, the_one
from headrace.client.handlers.entries import ENTRIES, Entry, Task, entry_of
from headrace.client.handlers.running import answered, running
from headrace.client.handlers.types import EndpointType, read_type
from headrace.contracts.errors import LLMInvalidRequestError


class Handler:
    """Answers by calling it: outside a running event loop with the answer, inside one with an
    awaitable of it.

    A chat model takes a text, or a list of messages (LLMMessage, or mappings with ``role`` and
    ``content``), and gives an LLMResponse; an embedding model takes a text or a list of them and
    gives an EmbeddingResult. Settings are given by name, as to ``Client.chat`` and
    ``Client.embed``. What runs in the box is started by the first call, and ended by ``close`` or
    with the process. A callable that was registered is called with whatever is given, and its
    result is the answer.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    @property
    def model(self) -> str:
        """The model's name, as it was asked for."""
        return self._entry.model

    @property
    def endpoint_type(self) -> str:
        """Where it runs, such as ``cpu:0``."""
        return str(self._entry.type)

    @property
    def task(self) -> Task:
        """What it does."""
        return self._entry.task

    def __call__(self, *given: object, **settings: Any) -> Any:
        """The answer, or inside a running loop an awaitable of it."""
        call = self._entry.call
        if call is not None:
            return _called(call, given, settings)
        return answered(self._work(given, settings))

    def close(self) -> Any:
        """End what this handler has started; to call it again starts it anew.

        Inside a running loop the result is to be awaited.
        """
        return answered(lambda: running().close(self._entry))

    def __repr__(self) -> str:
        return f"<endpoint handler {self.model} {self.endpoint_type}>"

    def _work(
        self, given: tuple[object, ...], settings: dict[str, Any]
    ) -> Callable[[], Coroutine[Any, Any, Any]]:
        entry, embeds = self._entry, self._entry.task == "embeddings"
        asked = the_one(given, settings, embeds=embeds)
        client, name = running().asked(entry)
        if embeds:
            inputs = as_inputs(asked)
            return lambda: client.embed(inputs, model=name, **settings)  # type: ignore[arg-type]
        how = {
            each: settings.pop(each) for each in ("output", "output_settings") if each in settings
        }
        request = as_chat(asked, settings, name, entry.model)
        return lambda: client.generate(request, **how)


class _OfModel(Mapping[str, Handler]):
    """The handlers of one model, by type."""

    def __init__(self, all_of_them: EndpointHandlers, model: str) -> None:
        self._all, self._model = all_of_them, model

    def __getitem__(self, endpoint_type: str) -> Handler:
        return self._all.handler(self._model, endpoint_type)

    def __contains__(self, endpoint_type: object) -> bool:
        try:
            return str(read_type(endpoint_type)) in ENTRIES.types_of(self._model)
        except LLMInvalidRequestError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES.types_of(self._model))

    def __len__(self) -> int:
        return len(ENTRIES.types_of(self._model))

    def __repr__(self) -> str:
        return f"<endpoint handlers of {self._model}: {', '.join(self) or 'none'}>"


class EndpointHandlers(Mapping[str, Mapping[str, Handler]]):
    """Handlers by model and type: ``endpoint_handler(model, type)`` is
    ``endpoint_handler[model][type]``, and ``endpoint_handler()`` the whole mapping, to be read only.

    It lists what is in the box and what was registered; of any other model ``remote:<backend>``
    can be had. What there is not, raises LLMEndpointNotFoundError, which is a KeyError too.
    """

    def __init__(self) -> None:
        self._handlers: dict[Entry, Handler] = {}
        self._found: dict[tuple[str, EndpointType], Entry] = {}
        self._lock = threading.RLock()

    @overload
    def __call__(self) -> EndpointHandlers: ...

    @overload
    def __call__(self, model: str) -> Mapping[str, Handler]: ...

    @overload
    def __call__(self, model: str, endpoint_type: str) -> Handler: ...

    def __call__(
        self, model: str | None = None, endpoint_type: str | None = None
    ) -> EndpointHandlers | Mapping[str, Handler] | Handler:
        """The handler; without a type those of the model; without a model all of them."""
        if model is None:
            if endpoint_type is not None:
                raise LLMInvalidRequestError(
                    f"endpoint_type is {endpoint_type!r}, but no model is named", param="model"
                )
            return self
        if endpoint_type is None:
            return self[model]
        return self.handler(model, endpoint_type)

    def __getitem__(self, model: str) -> Mapping[str, Handler]:
        return _OfModel(self, model)

    def __contains__(self, model: object) -> bool:
        return model in ENTRIES.models()

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES.models())

    def __len__(self) -> int:
        return len(ENTRIES.models())

    def __repr__(self) -> str:
        return f"<endpoint handlers of {', '.join(self)}>"

    def handler(self, model: str, endpoint_type: str) -> Handler:
        """The one object for both."""
        type = read_type(endpoint_type)
        with self._lock:
            entry = self._found.get((model, type))
            if entry is None:
                entry = self._found[model, type] = ENTRIES.find(model, type)
                self._handlers[entry] = Handler(entry)
            return self._handlers[entry]

    def _forget(self, model: str, type: EndpointType) -> Entry | None:
        """Have it found anew; what was found before."""
        with self._lock:
            entry = self._found.pop((model, type), None)
            if entry is not None:
                del self._handlers[entry]
            return entry

    def _renew_lock(self) -> None:
        """Let nobody be held up by who is not in this process."""
        self._lock = threading.RLock()

    def close(self) -> Any:
        """End all that handlers have started; to be awaited inside a running loop."""
        return answered(lambda: running().close_all())


def register_endpoint(
    model: str,
    endpoint_type: str,
    *,
    callable: Callable[..., Any] | None = None,
    backend: Any = None,
    engine: Any = None,
    task: str | None = None,
    replace: bool = False,
    **settings: Any,
) -> Handler:
    """Have ``endpoint_handler(model, endpoint_type)`` answer by what is named; that handler.

    ``callable`` is any function, synchronous or not; ``backend`` an object that meets the protocol
    Backend; ``engine`` an EngineConfig, or the name of a registered engine. Without them ``model``
    is a file or folder on this machine that an engine in the box runs, or, of a type
    ``remote:<backend>``, a model of the provider of that name; with ``settings`` (the fields of
    EndpointConfig: base_url, api_keys, max_concurrent_requests ...) ``<backend>`` is a new endpoint
    of that name. ``task`` is chat or embeddings.

    Nothing is started. Raises LLMInvalidRequestError that names what is wrong, and where the model
    has such an endpoint already, unless ``replace`` is given.
    """
    type = read_type(endpoint_type)
    if settings:
        _make_remote(type, settings, replace=replace, beside=callable or backend or engine)
    entry = entry_of(
        model, endpoint_type, task=task, backend=backend, engine=engine, callable=callable
    )
    ENTRIES.add(entry, replace=replace)
    _end(endpoint_handler._forget(model, type))
    return endpoint_handler.handler(model, endpoint_type)


def unregister_endpoint(model: str, endpoint_type: str) -> None:
    """Have it known no more; what was started for it is ended."""
    type = read_type(endpoint_type)
    entry = ENTRIES.remove(model, type)
    endpoint_handler._forget(model, type)
    _end(entry)


def _make_remote(
    type: EndpointType, settings: dict[str, Any], *, replace: bool, beside: object
) -> None:
    if type.family != "remote" or beside is not None:
        first = sorted(settings)[0]
        raise LLMInvalidRequestError(
            f"{first!r} is a setting of an endpoint that is asked across HTTP, and {type} is none "
            "of ours to make; leave it out, or register remote:<name>",
            param=first,
        )
    endpoints = running().client().endpoints
    if replace and type.place in endpoints:
        endpoints.remove(type.place)
    endpoints.create(type.place, **settings)


def _end(entry: Entry | None) -> None:
    """End what was opened for ``entry``, and do not wait for that inside a running loop."""
    if entry is None:
        return
    ending = answered(lambda: running().close(entry))
    if ending is not None:
        _endings.add(task := asyncio.ensure_future(ending))
        task.add_done_callback(_endings.discard)


def _called(call: Callable[..., Any], given: tuple[object, ...], settings: dict[str, Any]) -> Any:
    async def asked() -> Any:
        result = call(*given, **settings)
        return await result if inspect.isawaitable(result) else result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        result = call(*given, **settings)
        if not inspect.isawaitable(result):
            return result

        async def waited() -> Any:
            return await result

        return answered(waited)
    if inspect.iscoroutinefunction(call):
        return asked()

    async def in_a_thread() -> Any:
        # It may take its time, and the caller's loop has other things to do.
        result = await asyncio.to_thread(call, *given, **settings)
        return await result if inspect.isawaitable(result) else result

    return in_a_thread()


def _renew_locks() -> None:
    """In a forked child: another thread of the parent may have held them."""
    ENTRIES._renew_lock()
    endpoint_handler._renew_lock()


_endings: set[asyncio.Future[Any]] = set()
endpoint_handler = EndpointHandlers()
os.register_at_fork(after_in_child=_renew_locks)
