"""A chain's engines as clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.backends.managed.adapters import known_backends
from headrace.client.async_client import AsyncClient
from headrace.contracts.engines import EngineConfig
from headrace.contracts.record import RecordSink
from headrace.traffic.endpoint import EndpointSettings
from headrace.traffic.retry import RetryPolicy

_LONGEST_WAIT_S = 3600.0
_WHOLE_S = 600.0
"""How long an answer may take that is asked for in one piece, and so shows no beginning."""


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
        whole_s=_WHOLE_S,
    )
    clients = {}
    for name in names:
        engine = known.get(name)
        if engine is None:
            clients[name] = AsyncClient(
                name, endpoint=endpoint, sinks=sinks, max_connections=concurrency
            )
        else:
            clients[name] = AsyncClient(
                engine=engine, endpoint=endpoint, sinks=sinks, max_connections=concurrency
            )
    return clients


def is_started(engine: EngineConfig) -> bool:
    """Whether its server is one that we start and stop."""
    return engine.endpoint is None and engine.backend in known_backends()
