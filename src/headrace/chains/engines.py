"""A chain's engines as clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.client.async_client import AsyncClient
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.record import RecordSink
from headrace.stores.credentials import Credentials
from headrace.traffic.endpoint import EndpointSettings
from headrace.traffic.retry import RetryPolicy

_LONGEST_WAIT_S = 3600.0


def open_clients(
    names: Iterable[str],
    engines: Iterable[EngineConfig],
    *,
    concurrency: int,
    retries: int,
    sinks: tuple[RecordSink, ...] = (),
) -> dict[str, AsyncClient]:
    """A client for each of ``names``: an engine of ``engines``, or a ``provider/model``."""
    known: Mapping[str, EngineConfig] = {each.name: each for each in engines}
    endpoint = EndpointSettings(
        max_running=concurrency,
        max_waiting=100 * concurrency,
        queue_s=_LONGEST_WAIT_S,
        # Rows can wait, so nobody is given up for others' sake: every row has all its retries.
        retry=RetryPolicy(retries=retries, first_delay_s=0.5) if retries else None,
        retry_ratio=1.0,
        breaker=None,
        total_s=None,
    )
    clients = {}
    for name in names:
        engine = known.get(name)
        if engine is None:
            clients[name] = AsyncClient(
                name, endpoint=endpoint, sinks=sinks, max_connections=concurrency
            )
        elif engine.endpoint is not None:
            clients[name] = AsyncClient(
                engine.model,
                base_url=engine.endpoint,
                api_key=_key_of(engine),
                endpoint=endpoint,
                sinks=sinks,
                max_connections=concurrency,
            )
        elif engine.backend == "openai":
            clients[name] = AsyncClient(
                f"openai/{engine.model}",
                api_key=_key_of(engine),
                endpoint=endpoint,
                sinks=sinks,
                max_connections=concurrency,
            )
        else:
            raise LLMCapabilityError(
                f"engine {name!r} has no endpoint: start its server, and name it as endpoint",
                param="endpoint",
            )
    return clients


def _key_of(engine: EngineConfig) -> str | None:
    if engine.api_key_env is None:
        return engine.api_key
    found = Credentials().require(f"engine {engine.name!r}", (engine.api_key_env,))
    return found.secret.reveal()
