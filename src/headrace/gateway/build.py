"""Put a gateway together from its configuration: engines, lanes, routes."""

from __future__ import annotations

from random import Random

from attrs import frozen

from headrace.backends.local.box import Box
from headrace.backends.local.embedder import EmbedderSettings, LocalEmbedder
from headrace.backends.local.llamacpp import LlamaCppSettings
from headrace.backends.local.openvino import EngineLostError, OpenVinoSettings, is_installed
from headrace.backends.local.templates import read_template
from headrace.backends.pricing import price_of
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.app import Gateway
from headrace.gateway.config import Config
from headrace.gateway.records import Records, open_records
from headrace.gateway.remotes import remote_route
from headrace.gateway.routes import Defaults, Route, Routes
from headrace.gateway.several import join
from headrace.net.clock import World
from headrace.numbers.history import History
from headrace.numbers.live import Tally
from headrace.stores.models import PRESETS, ModelFile, ModelStore
from headrace.stores.models.fetch import find_or_fetch
from headrace.traffic.admission import Admission
from headrace.traffic.call import Traffic
from headrace.traffic.embedding import EmbeddingLane, batch_window
from headrace.traffic.lane import Lane
from headrace.traffic.retry import RetryPolicy

_OTHER_ENGINE = RetryPolicy(retries=1, first_delay_s=0.0, kinds=(EngineLostError,))


@frozen(kw_only=True)
class Assembly:
    """A gateway, and the engines and files whose lives belong to it."""

    gateway: Gateway
    records: Records
    engine: Box | None
    embedder: LocalEmbedder | None


def assemble(config: Config, model: ModelFile | None, world: World) -> Assembly:
    """The gateway of ``config``; ``model`` is the local engine's file, ``None`` without an engine.

    Raises LLMInvalidRequestError or LLMAuthError where the configuration cannot be carried out.
    """
    routes: list[Route] = []
    engine = None
    if model is not None:
        engine, route = _local(config, model, world)
        routes.append(route)
    routes += [remote_route(config, backend, world) for backend in config.backends]
    embedder = None
    if config.embeddings.enabled:
        embedder, route = _embedder(config, world)
        # Behind the chat model where there is one, for the first is the one that answers callers
        # who name none.
        routes.insert(1 if engine else len(routes), route)
    if not routes:
        raise LLMInvalidRequestError(
            "nothing to serve: engine.enabled and embeddings.enabled are false and no backends "
            "are configured",
            param="backends",
        )
    if config.routes:
        routes = join(config, routes, world.clock, Random())  # noqa: S311  no secret hangs on it
    names = [route.model for route in routes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LLMInvalidRequestError(
            f"two backends answer to the name {twice[0]!r}; give one of them another",
            param="backends",
        )
    tally = Tally(world.clock.monotonic(), models=names)
    history = History()
    records = open_records(config.records)
    kept = (history.add, *records.sinks) if config.server.page else records.sinks
    gateway = Gateway(
        config=config,
        routes=Routes(routes),
        traffic=Traffic(world.clock, tally, kept, price=price_of),
        tally=tally,
        history=history,
        clock=world.clock,
    )
    return Assembly(gateway=gateway, records=records, engine=engine, embedder=embedder)


def _local(config: Config, model: ModelFile, world: World) -> tuple[Box, Route]:
    batching, inference, preset = config.batching, config.inference, model.preset
    if preset is not None and preset.embeddings:
        raise LLMInvalidRequestError(
            f"{preset.name} makes embeddings and cannot chat; name it as embeddings.model",
            param="engine.model",
        )
    name = config.engine.name or model.name
    engine = Box(
        LlamaCppSettings(
            name=name,
            path=model.path,
            slots=batching.max_batch_size,
            kv_tokens=config.engine.kv_tokens,
            threads=config.engine.threads,
            template=read_template(config.engine.prompt_template),
        ),
        OpenVinoSettings(
            name=name,
            path=model.path,
            slots=batching.max_batch_size,
            kv_tokens=config.engine.kv_tokens,
            threads=config.engine.threads,
        )
        if config.engine.openvino and is_installed()
        else None,
        world,
        openvino_from=config.engine.openvino_from,
    )
    answer_tokens = min(inference.max_tokens, inference.context_length)
    defaults = Defaults(
        max_tokens=(preset and preset.max_tokens) or answer_tokens,
        temperature=inference.temperature
        if preset is None or preset.temperature is None
        else preset.temperature,
        top_p=preset.top_p if preset else None,
        system_prompt=inference.system_prompt
        if inference.system_prompt is not None or preset is None
        else preset.system_prompt,
        context_tokens=min(inference.context_length, config.engine.kv_tokens),
    )
    # Each engine has all the places and all the tokens for itself: 32 long answers in the one keep
    # nobody from the other.
    engines = [each for each in (engine.llamacpp, engine.openvino) if each is not None]
    doors = [
        Admission(
            max_running=batching.max_batch_size,
            max_waiting=batching.max_queue_size,
            timeout_s=batching.timeout_ms / 1000,
            max_tokens=config.engine.kv_tokens,
        )
        for _ in engines
    ]
    lane = Lane(
        backend=engine,
        one_answer_a_call=True,
        admission=doors[0],
        doors=dict(zip(engines, doors, strict=True)),
        default_answer_tokens=answer_tokens,
        # A call that OpenVINO has lost before it gave anything away is made again at llama.cpp.
        retry=_OTHER_ENGINE if engine.openvino is not None else None,
    )
    route = Route(
        model=name,
        lane=lane,
        patterns=config.engine.aliases,
        defaults=defaults,
        created=int(model.path.stat().st_mtime),
    )
    return engine, route


def _embedder(config: Config, world: World) -> tuple[LocalEmbedder, Route]:
    batching, wanted, store = config.batching, config.embeddings, ModelStore()
    preset = PRESETS.get(wanted.model.lower())
    if preset is not None and not preset.embeddings:
        raise LLMInvalidRequestError(
            f"{preset.name} chats and was not made for embeddings", param="embeddings.model"
        )
    # A path is looked at now: whether it leads anywhere should be known before the first request.
    name = wanted.name or (store.find(wanted.model) if preset is None else preset).name
    own_most = preset.max_input_tokens if preset is not None else None
    most = wanted.max_input_tokens or own_most or 512
    embedder = LocalEmbedder(
        EmbedderSettings(
            name=name,
            slots=batching.max_batch_size,
            threads=wanted.threads,
            max_input_tokens=most,
        ),
        lambda: find_or_fetch(store, wanted.model),
        world,
    )
    size = batching.max_batch_size
    lane = EmbeddingLane(
        backend=embedder,
        # While one batch is computed, the next one gathers.
        admission=Admission(
            max_running=2 * size,
            max_waiting=batching.max_queue_size,
            timeout_s=batching.timeout_ms / 1000,
        ),
        window=batch_window(
            embedder,
            world.clock,
            max_batch_size=size,
            max_wait_s=batching.max_wait_time_ms / 1000,
            max_waiting=2 * size,
        ),
    )
    route = Route(
        model=name,
        lane=lane,
        patterns=wanted.aliases,
        defaults=Defaults(context_tokens=most),
        created=int(world.clock.wall()),
    )
    return embedder, route
