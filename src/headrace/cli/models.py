"""``headrace models``: what we know of every provider's models, or what one server lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer
from attrs import evolve, frozen

from headrace.cli.output import console, print_json, table_of

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.backends.capabilities import ModelDescription
    from headrace.backends.row import Provider
    from headrace.contracts.capabilities import ModelInfo
    from headrace.gateway.config import Config
    from headrace.stores.credentials import Credentials

KeyState: TypeAlias = Literal["present", "missing", "not needed"]

# What the models in the box are listed under; they need neither a key nor an address.
_BOX = "box"
# What a gateway's configuration serves.
_GATEWAY = "gateway"


@frozen(kw_only=True)
class ProviderLine:
    """A provider: where it is, and whether a key for it is found. Never the key itself."""

    provider: str
    base_url: str | None
    key: KeyState
    key_names: tuple[str, ...]
    key_source: str | None
    models: int


@frozen(kw_only=True)
class ModelLine:
    """What we know of a model; the two rates are US dollars per million tokens.

    ``known`` is false where our table has no row for it: what it can do is then a guess. The rates
    are those of short prompts, where long ones cost more. ``in_cache`` is told of models in the box
    alone.
    """

    provider: str
    model: str
    key: KeyState
    known: bool
    context_window: int | None
    tools: str
    json_mode: str
    vision: bool
    audio: bool
    reasoning: bool
    embeddings: bool
    usd_per_million_input: Decimal | None = None
    usd_per_million_output: Decimal | None = None
    in_cache: bool | None = None


def models(
    provider: Annotated[
        str | None,
        typer.Option(
            help="Show this provider's models; box is what runs here, gateway what --config serves."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="List what the server there answers on /v1/models instead.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="HEADRACE_CONFIG", help="A gateway's YAML file: list what it serves, first."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List models: context, abilities, prices, and for which of them a key is found.

    Asks nobody, unless --url names a server; its key, if one is needed, is read from
    HEADRACE_API_KEY.
    """
    from headrace.contracts.errors import LLMInvalidRequestError

    if url is not None:
        if provider is not None:
            raise LLMInvalidRequestError("--provider and --url exclude one another; give one")
        _show_served(url, _listed_at(url), as_json)
        return
    if provider == _GATEWAY and config is None:
        raise LLMInvalidRequestError(
            "--provider gateway needs a gateway's file: name it by --config"
        )
    rows, lines = _known(provider, config)
    if as_json:
        print_json({"providers": rows, "models": lines})
        return
    out = console()
    if provider is None:
        _show_providers(out, rows)
        # Of the others one can call nothing: their models are for those who ask by name.
        lines = [line for line in lines if line.key != "missing" or line.provider == _GATEWAY]
    _show_models(out, lines)


def _known(only: str | None, config: Path | None) -> tuple[list[ProviderLine], list[ModelLine]]:
    """Every provider with its models in the price data, or ``only`` that one."""
    from headrace.backends.capabilities import describe_model
    from headrace.backends.providers import provider as row_of
    from headrace.backends.providers import providers, usual_base_url
    from headrace.gateway.config import load
    from headrace.numbers.price import listed_models
    from headrace.stores.credentials import Credentials

    credentials = Credentials()
    today = datetime.now(timezone.utc).date()
    found: list[ProviderLine] = []
    lines: list[ModelLine] = []
    settings = None if config is None else load(config)
    if settings is not None and only in {None, _GATEWAY}:
        lines += _configured(settings, credentials)
        found.append(
            ProviderLine(
                provider=_GATEWAY,
                base_url=f"http://{settings.server.host}:{settings.server.port}/v1",
                key="not needed",
                key_names=(),
                key_source=None,
                models=len(lines),
            )
        )
    if only == _GATEWAY and settings is not None:
        return found, lines
    if only is None or only == _BOX:
        in_the_box = _in_the_box()
        lines += in_the_box
        found.append(
            ProviderLine(
                provider=_BOX,
                base_url=None,
                key="not needed",
                key_names=(),
                key_source=None,
                models=len(in_the_box),
            )
        )
    for row in [] if only == _BOX else providers().values() if only is None else [row_of(only)]:
        state, source = _key(row, credentials)
        described = [describe_model(row, model, today) for model in listed_models(row.prices)]
        lines += [_line(each, state) for each in described]
        found.append(
            ProviderLine(
                provider=row.name,
                base_url=usual_base_url(row),
                key=state,
                key_names=row.key_env,
                key_source=source,
                models=len(described),
            )
        )
    return found, lines


def _key(
    row: Provider, credentials: Credentials, names: Sequence[str] | None = None
) -> tuple[KeyState, str | None]:
    for place in credentials.report(row.key_env if names is None else names):
        if place.state == "found":
            return "present", f"{place.name} in {place.source}"
    return ("missing" if row.needs_key else "not needed"), None


def _in_the_box() -> list[ModelLine]:
    from headrace.stores.models import PRESETS

    return [
        _engine_line(_BOX, name, name, embeddings=preset.embeddings)
        for name, preset in PRESETS.items()
    ]


def _engine_line(provider: str, name: str, model: str, *, embeddings: bool) -> ModelLine:
    """The ``model`` (a known name, or a file's path) that llama.cpp runs here as ``name``."""
    from headrace.backends.capabilities import capabilities_of
    from headrace.backends.providers import LLAMA_CPP_SERVER
    from headrace.stores.models import PRESETS, ModelStore, is_uri
    from headrace.stores.models.gguf_header import context_tokens

    store, preset = ModelStore(), PRESETS.get(model.lower())
    has = capabilities_of(LLAMA_CPP_SERVER, store.name_of(model))
    if preset is not None:
        window = preset.max_input_tokens if embeddings else preset.context_tokens
    elif is_uri(model):
        window = context_tokens(store.locate(model)) if store.is_here(model) else None
    else:
        window = context_tokens(Path(model).expanduser())
    return ModelLine(
        provider=provider,
        model=name,
        key="not needed",
        known=has.known,
        context_window=window,
        tools=has.tool_calling,
        json_mode=has.json_mode,
        vision=has.vision,
        audio=has.audio,
        reasoning=has.reasoning,
        embeddings=embeddings,
        in_cache=store.is_here(model),
    )


def _configured(settings: Config, credentials: Credentials) -> list[ModelLine]:
    """What the gateway of ``settings`` serves, by the names that its callers use."""
    from headrace.backends.capabilities import describe_model
    from headrace.gateway.remotes import row_for
    from headrace.stores.models import ModelStore

    lines = []
    engine, embedder = settings.engine, settings.embeddings
    if engine.enabled:
        name = engine.name or ModelStore().name_of(engine.model)
        line = _engine_line(_GATEWAY, name, engine.model, embeddings=False)
        bounds = (line.context_window, settings.inference.context_length, engine.kv_tokens)
        window = min(bound for bound in bounds if bound is not None)
        lines.append(evolve(line, context_window=window))
    if embedder.enabled:
        name = embedder.name or ModelStore().name_of(embedder.model)
        line = _engine_line(_GATEWAY, name, embedder.model, embeddings=True)
        lines.append(evolve(line, context_window=embedder.max_input_tokens or line.context_window))
    today = datetime.now(timezone.utc).date()
    for backend in settings.backends:
        row = row_for(settings, backend)
        names = (backend.api_key_env,) if backend.api_key_env else row.key_env
        state, _ = ("present", None) if backend.api_key else _key(row, credentials, names)
        for name in backend.models or (backend.name,):
            described = describe_model(row, backend.model or name, today)
            lines.append(evolve(_line(described, state), provider=_GATEWAY, model=name))
    return lines


def _line(described: ModelDescription, key: KeyState) -> ModelLine:
    has, rates = described.capabilities, described.rates
    step = rates.steps[0] if rates is not None else None
    return ModelLine(
        provider=described.provider,
        model=described.model,
        key=key,
        known=has.known,
        context_window=has.max_context_tokens,
        tools=has.tool_calling,
        json_mode=has.json_mode,
        vision=has.vision,
        audio=has.audio,
        reasoning=has.reasoning,
        embeddings=has.embeddings,
        usd_per_million_input=step.input_uncached if step is not None else None,
        usd_per_million_output=step.output_text if step is not None else None,
    )


def _listed_at(url: str) -> tuple[ModelInfo, ...]:
    import uvloop

    from headrace.backends.providers import provider
    from headrace.backends.remote import Remote
    from headrace.net.clock import World
    from headrace.net.pool import PooledTransport
    from headrace.net.proxy import ENVIRONMENT, find_proxies, through

    base = url.rstrip("/")
    base_url = base if base.endswith("/v1") else f"{base}/v1"

    async def ask() -> tuple[ModelInfo, ...]:
        transport = PooledTransport()
        proxies = find_proxies(ENVIRONMENT, os.environ)
        remote = Remote(
            name=base,
            provider=provider("openai-compatible"),
            base_url=base_url,
            world=World(transport=through(transport, proxies, base_url)),
            key=os.environ.get("HEADRACE_API_KEY") or None,
        )
        try:
            return await remote.models()
        finally:
            await transport.aclose()

    return uvloop.run(ask())


def _show_served(url: str, listed: Sequence[ModelInfo], as_json: bool) -> None:
    if as_json:
        print_json({"url": url, "models": listed})
        return
    table = table_of("model", "context>", "owned by", "created")
    for model in listed:
        day = datetime.fromtimestamp(model.created, timezone.utc).date() if model.created else "-"
        table.add_row(model.model_id, _count(model.max_context_tokens), model.owned_by, str(day))
    console().print(table)


def _show_providers(out: Console, rows: Sequence[ProviderLine]) -> None:
    table = table_of("provider", "key", "models>", "address")
    for row in rows:
        key = row.key_source or row.key
        if row.key == "missing":
            key = f"missing: {' or '.join(row.key_names)}"
        models = str(row.models) if row.models else "-"
        address = row.base_url or ("this machine" if row.provider == _BOX else "-")
        table.add_row(row.provider, key, models, address)
    out.print(table)
    out.print("\nModels that need no key or whose key is found (others: --provider NAME):\n")


def _show_models(out: Console, lines: Sequence[ModelLine]) -> None:
    table = table_of("model", "context>", "tools", "JSON", "can also", "$/M in>", "$/M out>")
    for line in lines:
        also = [
            name
            for name, has in (
                ("see", line.vision),
                ("hear", line.audio),
                ("reason", line.reasoning),
                ("embed", line.embeddings),
            )
            if has
        ]
        # What an unknown model can do is a guess, and a guess is not shown as knowledge.
        abilities = (line.tools, line.json_mode) if line.known else ("?", "?")
        table.add_row(
            f"{line.provider}/{line.model}",
            _count(line.context_window),
            *abilities,
            ", ".join(also),
            _usd(line.usd_per_million_input),
            _usd(line.usd_per_million_output),
        )
    out.print(table)
    if not lines:
        out.print("none: no price data lists any; the server does, with --url")


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else f"{tokens:,}"


def _usd(amount: Decimal | None) -> str:
    return "-" if amount is None else f"{amount.normalize():f}"
