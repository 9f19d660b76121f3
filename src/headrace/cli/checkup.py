"""Does this backend work? One live call to each, for ``headrace doctor``.

A provider is asked for its list of models: it costs nothing, and where a key is needed it proves
the key, unless the list is open to all, which one more call without the key tells. The engines in
the box are started, asked one question each, and stopped. Nobody is contacted for whom there is
neither a key nor an address that is local or was named by the user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from attrs import evolve, frozen

from headrace.backends.local.embedder import EmbedderSettings, LocalEmbedder
from headrace.backends.local.llamacpp import LlamaCpp, LlamaCppSettings
from headrace.backends.providers import LLAMA_CPP_SERVER, Provider, providers, usual_base_url
from headrace.backends.remote import Remote
from headrace.backends.scheme import by_scheme
from headrace.contracts.errors import LLMAuthError, LLMError, LLMTimeoutError, LLMUnavailableError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.net.clock import World
from headrace.net.hosts import is_private_host
from headrace.net.pool import PooledTransport
from headrace.net.proxy import ENVIRONMENT, find_proxies, through
from headrace.net.scripted import ScriptedTransport
from headrace.net.transport import TimeLimits, Transport, as_http, parse_url
from headrace.stores.models import BOX, PRESETS, ModelFile, ModelStore
from headrace.stores.secret import redact

if TYPE_CHECKING:
    from headrace.contracts.capabilities import ModelInfo
    from headrace.gateway.backend_config import BackendConfig
    from headrace.gateway.config import Config
    from headrace.stores.credentials import Credentials, FoundKey

T = TypeVar("T")

ImplementationType: TypeAlias = Literal["real", "remote", "scripted"]
Subject: TypeAlias = Callable[[World], Awaitable["BackendFinding"]]
"""What is looked at, as what looks at it."""
State: TypeAlias = Literal["works", "fails", "not there", "not asked"]

_CALL_S = 5.0
_LIMITS = TimeLimits(connect_s=3.0, first_byte_s=_CALL_S, idle_s=_CALL_S, total_s=_CALL_S)
# Loading from a cold disk is what takes long; the answer itself is a second.
_ENGINE_S = 120.0
# Of a server's models, so many are named where they are only an example.
_SHOWN = 5
_QUESTION = "What is the capital of France?"


@frozen(kw_only=True)
class BackendFinding:
    """One backend: whether it works, and what to do (``remedy``) where it does not.

    It is ``not there`` where nothing listens at the address that is usual for it and nobody said
    that something should. ``asked`` is what was asked of it, ``None`` if nothing; ``message`` what came of that, or why it
    was not asked. ``took_ms`` is how long that took.
    """

    name: str
    implementation_type: ImplementationType
    address: str | None
    state: State
    message: str
    asked: str | None = None
    took_ms: int | None = None
    models: tuple[str, ...] = ()
    remedy: str | None = None


def implementation_type(backend: object) -> ImplementationType:
    """Whether ``backend`` computes here, asks another, or answers from a script."""
    if isinstance(backend, (LlamaCpp, LocalEmbedder)):
        return "real"
    if isinstance(backend, Remote) and not isinstance(backend.world.transport, ScriptedTransport):
        return "remote"
    return "scripted"


def subjects(credentials: Credentials, config: Config | None = None) -> dict[str, Subject]:
    """All that can be looked at, by name: the models in the box, and every provider with a place.

    With ``config`` it is that gateway's own models in place of those in the box, and its providers
    and backends as well; a backend of it goes before a provider of its name.
    """
    found: dict[str, Subject] = {
        name: partial(_engine, name, name, preset.embeddings) for name, preset in PRESETS.items()
    }
    rows = list(providers().values())
    if config is not None:
        rows += config.providers
        found = _configured_engines(config)
    for row in rows:
        if row.base_url or row.base_url_env:
            found[row.name] = partial(_provider, row, credentials)
    for backend in config.backends if config is not None else ():
        assert config is not None
        found[backend.name] = partial(_configured, config, backend, credentials)
    return found


def _configured_engines(config: Config) -> dict[str, Subject]:
    found: dict[str, Subject] = {}
    for section, embeddings in ((config.engine, False), (config.embeddings, True)):
        if section.enabled:
            known = section.model.lower() in PRESETS
            name = section.name or (section.model.lower() if known else Path(section.model).stem)
            found[name] = partial(_engine, name, section.model, embeddings)
    return found


async def examine(
    chosen: Mapping[str, Subject], transport: Transport | None = None
) -> tuple[BackendFinding, ...]:
    """What is found of each of ``chosen``, in their order; all are asked at once."""
    own = PooledTransport() if transport is None else transport
    world = World(transport=own)
    try:
        return tuple(await asyncio.gather(*(subject(world) for subject in chosen.values())))
    finally:
        if transport is None:
            await own.aclose()


async def _provider(row: Provider, credentials: Credentials, world: World) -> BackendFinding:
    address = usual_base_url(row, credentials.environment)
    idle = BackendFinding(
        name=row.name,
        implementation_type="remote",
        address=None if address is None else redact(address),
        state="not asked",
        message="",
    )
    if address is None:
        remedy = f"set {' or '.join(row.base_url_env)} to its address"
        return evolve(idle, message="it has no address of its own", remedy=remedy)
    try:
        found = credentials.find(row.key_env)
        if found is None and row.needs_key:
            names = " or ".join(row.key_env)
            where = f"set {names}, or write it to {credentials.config} (mode 0600)"
            return evolve(idle, message="no key is found", remedy=where)
        if found is None and not _may_be_asked(row, address, credentials):
            hint = f"set {' or '.join(row.key_env)}" if row.key_env else None
            return evolve(idle, message="neither a key nor a local address", remedy=hint)
        proxies = find_proxies(ENVIRONMENT, credentials.environment)
        remote = by_scheme(
            Remote(
                name=row.name,
                provider=row,
                base_url=address,
                world=evolve(world, transport=through(world.transport, proxies, address)),
                key=None if found is None else found.secret,
                limits=_LIMITS,
            )
        )
    except LLMError as error:  # a file of keys that others can read, a key no header can carry
        return evolve(idle, state="fails", message=str(error))
    return await _ask_for_models(
        evolve(idle, implementation_type=implementation_type(remote)),
        remote,
        found,
        # At home nobody may have started it; elsewhere, or with a key for it, somebody counts on it.
        expected=found is not None or remote.base_url != row.base_url,
    )


def _may_be_asked(row: Provider, address: str, credentials: Credentials) -> bool:
    """Without a key: at home only, or where the user has said where."""
    if any(credentials.environment.get(name, "").strip() for name in row.base_url_env):
        return True
    url = parse_url(as_http(address))
    return url.unix_path is not None or is_private_host(url.host)


async def _configured(
    config: Config, backend: BackendConfig, credentials: Credentials, world: World
) -> BackendFinding:
    """A backend of the configuration: its user wants it, so it is asked wherever it is."""
    from headrace.gateway.remotes import address_of, key_of, open_remote, row_for

    idle = BackendFinding(
        name=backend.name, implementation_type="remote", address=None, state="fails", message=""
    )
    try:
        row = row_for(config, backend)
        idle = evolve(idle, address=redact(address_of(backend, row, credentials)))
        found = key_of(backend, row, credentials)
        remote = evolve(open_remote(config, backend, world, credentials), limits=_LIMITS)
    except LLMAuthError as error:
        where = backend.api_key_env or " or ".join(row.key_env) or "api_key_env"
        return evolve(idle, message=str(error), remedy=f"set {where}")
    except LLMError as error:
        return evolve(idle, message=str(error), remedy=f"give backend {backend.name!r} a base_url")
    idle = evolve(idle, implementation_type=implementation_type(remote))
    finding = await _ask_for_models(idle, remote, found, expected=True)
    wanted = (
        [backend.model] if backend.model else [m for m in backend.models if not set("*?") & {*m}]
    )
    absent = [model for model in wanted if finding.models and model not in finding.models]
    if finding.state == "works" and absent:
        return evolve(
            finding,
            message=f"{finding.message}, but not {', '.join(absent)}",
            remedy="look at the models (or model) of this backend; it lists "
            f"{', '.join(finding.models[:_SHOWN])}",
        )
    return finding


async def _ask_for_models(
    idle: BackendFinding, remote: Remote, found: FoundKey | None, *, expected: bool
) -> BackendFinding:
    row = remote.provider
    asking = evolve(idle, asked=f"GET {row.models_path}, which costs nothing")

    async def ask() -> tuple[ModelInfo, ...]:
        return await remote.models()

    listed, asking = await _timed(ask, asking, remote.world, _CALL_S)
    if isinstance(listed, LLMError):
        absent = isinstance(listed, LLMUnavailableError) and not expected
        return evolve(
            asking,
            state="not there" if absent else "fails",
            message=str(listed),
            remedy=_remedy(listed, remote, found),
        )
    names = tuple(model.model_id for model in listed)
    owners = {model.owned_by for model in listed if model.owned_by}
    # Several servers are at home at the same port: who answers may be another than was asked.
    whose = f" owned by {owners.pop()}" if len(owners) == 1 else ""
    message = f"answers, and lists {len(names)} model{'' if len(names) == 1 else 's'}{whose}"
    if row.needs_key and await _is_open(remote):
        message += "; it does so for anybody, so whether the key is right is not known"
    return evolve(asking, state="works", message=message, models=names)


async def _is_open(remote: Remote) -> bool:
    try:
        await evolve(remote, key=None).models()
    except LLMError:
        return False
    return True


def _remedy(error: LLMError, remote: Remote, found: FoundKey | None) -> str:
    row = remote.provider
    if isinstance(error, LLMAuthError):
        if found is None:
            return f"set {' or '.join(row.key_env)}" if row.key_env else "hand in api_key"
        if found.name is None:
            return "put a key that it accepts into its api_key, or better into a variable"
        return f"put a key that it accepts into {found.name} ({found.source})"
    if isinstance(error, (LLMUnavailableError, LLMTimeoutError)):
        named = f", or name another address in {row.base_url_env[0]}" if row.base_url_env else ""
        if is_private_host(parse_url(as_http(remote.base_url)).host):
            return f"start the server{named}"
        return f"look whether this machine reaches it{named}"
    return "look at its address and at what it says; another server may be listening there"


async def _engine(name: str, model: str, embeddings: bool, world: World) -> BackendFinding:
    """``model``, a preset's name or a file's path, as the engine that answers to ``name``."""
    store, preset = ModelStore(), PRESETS.get(model.lower())
    idle = BackendFinding(
        name=name,
        implementation_type="real",
        address=None,
        state="not asked",
        message="",
        models=(name,),
    )
    if preset is not None and not store.is_here(preset.name):
        megabytes = round(preset.size_bytes / 1e6)
        serve = "headrace serve" if preset == BOX else f"headrace serve --model {preset.name}"
        ask = "a first request for embeddings does" if embeddings else f"{serve} does"
        return evolve(
            idle,
            message=f"its file is not in {store.cache}",
            remedy=f"fetch it ({megabytes} MB, once): {ask}",
        )
    if not store.is_here(model):
        return evolve(
            idle,
            message=f"its file is not in {store.cache}",
            remedy=f"fetch it (once): headrace model pull {model}",
        )
    try:
        file = store.find(model)
    except LLMError as error:
        section = "embeddings" if embeddings else "engine"
        return evolve(
            idle, state="fails", message=str(error), remedy=f"set {section}.model to a GGUF file"
        )
    if embeddings:
        asked = "a vector for a sentence, of the engine in a process of its own"
        said, finding = await _timed(
            lambda: _vector(file, world), evolve(idle, asked=asked), world, _ENGINE_S
        )
    else:
        asked = f"{_QUESTION!r}, of the engine in a process of its own"
        said, finding = await _timed(
            lambda: _answer(file, world), evolve(idle, asked=asked), world, _ENGINE_S
        )
    if isinstance(said, LLMError):
        remedy = (
            f"make sure that {LLAMA_CPP_SERVER.name} (the wheel xllamacpp) runs on this machine; "
            f"if the model's file is broken, remove {file.path.parent}"
        )
        return evolve(finding, state="fails", message=str(said), remedy=remedy)
    return evolve(finding, state="works", message=said)


async def _answer(file: ModelFile, world: World) -> str:
    """Start the engine, ask, stop it; what it said."""
    settings = LlamaCppSettings(
        name=file.name, path=file.path, slots=1, kv_tokens=512, threads=1, http_threads=2
    )
    engine = LlamaCpp(settings, world)
    request = LLMRequest(
        messages=(
            LLMMessage(role="system", content=(file.preset and file.preset.system_prompt) or ""),
            LLMMessage(role="user", content=_QUESTION),
        ),
        max_tokens=12,
        temperature=0.0,
    )
    try:
        await engine.start()
        text = [d.text_delta async for d in engine.stream(request, Marks()) if d.text_delta]
    finally:
        await engine.aclose()
    if not text:
        raise LLMUnavailableError(f"{file.name} started and answered with nothing")
    return f"answers: {''.join(text).strip()!r}"


async def _vector(file: ModelFile, world: World) -> str:
    most = (file.preset and file.preset.max_input_tokens) or 512

    async def find() -> ModelFile:
        return file

    settings = EmbedderSettings(name=file.name, slots=1, threads=1, max_input_tokens=most)
    embedder = LocalEmbedder(settings, find, world)
    try:
        result = await embedder.embed(EmbeddingRequest(inputs=(_QUESTION,)), Marks())
    finally:
        await embedder.aclose()
    return f"answers with a vector of {len(result.vectors[0])} numbers"


async def _timed(
    ask: Callable[[], Awaitable[T]], asking: BackendFinding, world: World, limit_s: float
) -> tuple[T | LLMError, BackendFinding]:
    """What ``ask`` gives, or its error, and ``asking`` with the time that it took."""
    begin = world.clock.monotonic()
    said: T | LLMError
    try:
        async with asyncio.timeout(limit_s):
            said = await ask()
    except TimeoutError:
        said = LLMTimeoutError(f"no answer within {limit_s:g} s")
    except LLMError as error:
        said = error
    took_ms = round((world.clock.monotonic() - begin) * 1000)
    return said, evolve(asking, took_ms=took_ms)
