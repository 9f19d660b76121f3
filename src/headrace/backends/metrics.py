"""Asks an engine how it is: where its provider's row says, in little time and few bytes."""

from __future__ import annotations

from typing import Protocol

from attrs import evolve

from headrace.backends.row import Provider
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.errors import LLMUnavailableError
from headrace.net.clock import World
from headrace.net.transport import HttpRequest, TimeLimits, Url, as_http, parse_url
from headrace.stores.secret import Secret
from headrace.wire.engine_metrics import read_engine_metrics

_MOST_BYTES = 4 << 20
_LIMITS = TimeLimits(queue_s=1.0, connect_s=1.0, first_byte_s=1.0, idle_s=1.0, total_s=2.0)


class Reached(Protocol):
    """An engine as it is reached: a Remote."""

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> Provider: ...
    @property
    def base_url(self) -> str: ...
    @property
    def metrics_url(self) -> str | None: ...
    @property
    def world(self) -> World: ...
    @property
    def key(self) -> Secret | None: ...


async def ask_metrics(engine: Reached) -> EngineMetrics | None:
    """What it tells now; ``None`` where that is nothing that we know.

    Raises LLMUnavailableError where it does not tell, or tells nobody (some have to be started with
    a flag for it), and what the transport raises.
    """
    url = metrics_place(engine.provider, engine.base_url, engine.metrics_url)
    if url is None:
        return None
    headers = [("accept", "text/plain, application/json")]
    # Its key is for the server that it belongs to; a monitor elsewhere is told nothing.
    if engine.key is not None and url.origin == parse_url(as_http(engine.base_url)).origin:
        shown = engine.provider.key_scheme + engine.key.reveal()
        headers.append((engine.provider.key_header, shown))
    request = HttpRequest(url=url, headers=tuple(headers))
    reply = await engine.world.transport.send(request, _LIMITS)
    try:
        if reply.status != 200:
            raise LLMUnavailableError(
                f"{engine.name} answers {url.target.partition('?')[0]} with {reply.status}",
                provider=engine.provider.name,
            )
        told = read_engine_metrics(await reply.read(_MOST_BYTES))
    finally:
        await reply.aclose()
    row = engine.provider
    # On that other port another server may have been first.
    is_elsewhere = engine.metrics_url is None and row.metrics_port is not None
    if is_elsewhere and told is not None and told.engine != row.name:
        return None
    return told


def metrics_place(row: Provider, base_url: str, metrics_url: str | None = None) -> Url | None:
    """Where the engine at ``base_url`` tells how it is: at ``metrics_url``, or as ``row`` says."""
    if metrics_url is not None:
        return parse_url(metrics_url)
    if row.metrics_path is None:
        return None
    base = parse_url(base_url)
    root = base.target.partition("?")[0].rstrip("/").removesuffix("/v1")
    place = evolve(base, target=root + row.metrics_path)
    if row.metrics_port is None or base.unix_path is not None:
        return place
    return evolve(place, port=row.metrics_port)
