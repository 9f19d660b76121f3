"""Put a gateway together from its configuration: engines, lanes, routes."""

from __future__ import annotations

from random import Random

from attrs import evolve, field, frozen

from headrace.backends.local.box import Box
from headrace.backends.local.embedder import EmbedderSettings, LocalEmbedder
from headrace.backends.local.llamacpp import LlamaCppSettings
from headrace.backends.local.openvino import EngineLostError, OpenVinoSettings, is_installed
from headrace.backends.local.similarity import SimilarityRanker
from headrace.backends.local.templates import read_template
from headrace.backends.local.whisper import Whisper
from headrace.backends.pricing import price_of
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.app import Gateway
from headrace.gateway.audio_here import open_audio
from headrace.gateway.candidates import Known
from headrace.gateway.config import Config
from headrace.gateway.engines import EngineHome, EnginesHere
from headrace.gateway.guard import Guard
from headrace.gateway.records import Records, open_records
from headrace.gateway.remotes import place
from headrace.gateway.routes import Defaults, Route, Routes
from headrace.gateway.several import join
from headrace.gateway.share import WHOLE, Share
from headrace.gateway.standing import Standing
from headrace.net.clock import World
from headrace.numbers.history import History
from headrace.numbers.live import Tally
from headrace.stores.models import PRESETS, ModelFile, ModelStore
from headrace.stores.models.fetch import find_or_fetch
from headrace.traffic.admission import Admission
from headrace.traffic.call import Traffic
from headrace.traffic.counts import Counts
from headrace.traffic.embedding import EmbeddingLane, batch_window
from headrace.traffic.gauge import gauge_for
from headrace.traffic.lane import Lane
from headrace.traffic.retry import RetryPolicy

_OTHER_ENGINE = RetryPolicy(retries=1, first_delay_s=0.0, kinds=(EngineLostError,))


@frozen(kw_only=True)
class Own:
    """What every reading of the configuration finds there and leaves as it is.

    The routes to the models in the box, the file of the one that chats, and where the engines are
    that we start. Where several processes
    serve together, ``share`` is this one's of the remote backends; where it is reached through the
    others, callers have shown their keys to them (``guarded`` is false). ``known`` is what calls so
    far have told of each backend.
    """

    chat: Route | None = None
    embeddings: Route | None = None
    audio: Route | None = None
    model: ModelFile | None = None
    engines: EngineHome = field(factory=EnginesHere)
    share: Share = WHOLE
    guarded: bool = True
    known: Known = field(factory=Known)


@frozen(kw_only=True)
class Assembly:
    """A gateway, and the engines and files whose lives belong to it."""

    gateway: Gateway
    records: Records
    own: Own
    engine: Box | None
    engines: EnginesHere
    embedder: LocalEmbedder | None
    whisper: Whisper | None = None


def assemble(
    config: Config,
    model: ModelFile | None,
    world: World,
    *,
    share: Share = WHOLE,
    guarded: bool = True,
) -> Assembly:
    """The gateway of ``config``; ``model`` is the local engine's file, ``None`` without an engine.

    ``share`` and ``guarded`` are as in Own.
    Raises LLMInvalidRequestError or LLMAuthError where the configuration cannot be carried out.
    """
    engine = chat = embedder = embeddings = None
    if model is not None:
        engine, chat = _local(config, model, world)
    if config.embeddings.enabled:
        embedder, embeddings = _embedder(config, world)
    whisper, audio = open_audio(config, world) or (None, None)
    engines = EnginesHere()
    own = Own(
        chat=chat,
        embeddings=embeddings,
        audio=audio,
        model=model,
        engines=engines,
        share=share,
        guarded=guarded,
    )
    gateway, records = gateway_of(config, own, world)
    return Assembly(
        gateway=gateway,
        records=records,
        own=own,
        engine=engine,
        engines=engines,
        embedder=embedder,
        whisper=whisper,
    )


def gateway_of(config: Config, own: Own, world: World) -> tuple[Gateway, Records]:
    """A gateway that stands on ``config``, and where its records go; raises as ``assemble``."""
    standing = stand(config, own, world)
    tally = Tally(world.clock.monotonic(), models=[route.model for route in standing.routes])
    history = History()
    records = open_records(config.records)
    watched = (history.add,) if config.server.page else ()
    kept = (own.known.paces.add, *watched, *records.sinks)
    gateway = Gateway(
        standing=standing,
        traffic=Traffic(world.clock, tally, kept, price=price_of),
        tally=tally,
        history=history,
        clock=world.clock,
    )
    return gateway, records


def stand(config: Config, own: Own, world: World, before: Standing | None = None) -> Standing:
    """What requests are answered by under ``config``; lanes that do not change are ``before``'s.

    Raises LLMInvalidRequestError or LLMAuthError where the configuration cannot be carried out.
    """
    config = own.share.of(config)
    routes: list[Route] = []
    if own.chat is not None:
        routes.append(own.chat if own.model is None else _filled(own.chat, config, own.model))
    engines = own.engines.place(config, world, () if before is None else before.engines)
    routes += [each.route for each in engines]
    placed = place(config, world, () if before is None else before.placed)
    routes += [each.route for each in placed]
    if own.embeddings is not None:
        # Behind the chat model where there is one, for the first is the one that answers callers
        # who name none.
        routes.insert(1 if own.chat else len(routes), own.embeddings)
    if own.audio is not None:
        routes.append(own.audio)
    if not routes:
        raise LLMInvalidRequestError(
            "nothing to serve: engine.enabled and embeddings.enabled are false and no backends "
            "or engines are configured",
            param="backends",
        )
    if config.routes:
        lanes = () if before is None else (lane for lane, _ in before.routes.lanes())
        chance = Random()  # noqa: S311  no secret hangs on it
        routes = join(config, routes, world.clock, chance, own.known, lanes)
    routes = [own.known.limited(route, world.clock) for route in routes]
    names = [route.model for route in routes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LLMInvalidRequestError(
            f"two backends answer to the name {twice[0]!r}; give one of them another",
            param="backends",
        )
    return Standing(
        config=config,
        routes=Routes(routes),
        guard=Guard(config.server.api_keys if own.guarded else ()),
        admin=Guard(config.server.admin_keys) if config.server.admin_keys else None,
        placed=placed,
        engines=engines,
    )


def _local(config: Config, model: ModelFile, world: World) -> tuple[Box, Route]:
    batching, preset = config.batching, model.preset
    if preset is not None and preset.embeddings:
        raise LLMInvalidRequestError(
            f"{preset.name} makes embeddings and cannot chat; name it as embeddings.model",
            param="engine.model",
        )
    name = config.engine.name or model.name
    template = config.engine.prompt_template or (preset.prompt_template if preset else None)
    engine = Box(
        LlamaCppSettings(
            name=name,
            path=model.path,
            slots=batching.max_batch_size,
            kv_tokens=config.engine.kv_tokens,
            threads=config.engine.threads,
            template=read_template(template),
            stuck_after_s=config.engine.stuck_after_ms / 1000,
        ),
        OpenVinoSettings(
            name=name,
            path=model.path,
            slots=batching.max_batch_size,
            kv_tokens=config.engine.kv_tokens,
            threads=config.engine.threads,
            stuck_after_s=config.engine.stuck_after_ms / 1000,
        )
        if config.engine.openvino and is_installed()
        else None,
        world,
        openvino_from=config.engine.openvino_from,
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
        gauge=gauge_for(engine, world.clock),
        # A call that OpenVINO has lost before it gave anything away is made again at llama.cpp.
        retry=_OTHER_ENGINE if engine.openvino is not None else None,
        counts=Counts(world.clock.wall),
    )
    route = Route(
        model=name,
        lane=lane,
        patterns=config.engine.aliases,
        created=int(model.path.stat().st_mtime),
    )
    return engine, route


def _filled(route: Route, config: Config, model: ModelFile) -> Route:
    """The way to the chat model, with what ``config`` and the model's preset fill in on it."""
    inference, preset = config.inference, model.preset
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
    lane = evolve(route.lane, default_answer_tokens=answer_tokens)
    return evolve(route, lane=lane, defaults=defaults)


def _embedder(config: Config, world: World) -> tuple[LocalEmbedder, Route]:
    batching, wanted, store = config.batching, config.embeddings, ModelStore()
    preset = PRESETS.get(wanted.model.lower())
    if preset is not None and not preset.embeddings:
        raise LLMInvalidRequestError(
            f"{preset.name} chats and was not made for embeddings", param="embeddings.model"
        )
    name = wanted.name or store.name_of(wanted.model)
    if preset is None and store.is_here(wanted.model):
        # Looked at now: whether it is a model's file should be known before the first request.
        store.find(wanted.model)
    own_most = preset.max_input_tokens if preset is not None else None
    most = wanted.max_input_tokens or own_most or 512
    kind = SimilarityRanker if wanted.rank_by_similarity else LocalEmbedder
    embedder = kind(
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
        counts=Counts(world.clock.wall),
    )
    route = Route(
        model=name,
        lane=lane,
        patterns=wanted.aliases,
        serves="embeddings",
        defaults=Defaults(context_tokens=most),
        created=int(world.clock.wall()),
    )
    return embedder, route
