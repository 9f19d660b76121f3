"""A chain's engines: as clients, and the pace at which each is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headrace.backends.managed.adapters import known_backends
from headrace.chains.pace import Account, Pace, PaceSettings
from headrace.client.async_client import AsyncClient
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.record import RecordSink
from headrace.net.clock import Clock, SystemClock
from headrace.traffic.endpoint import EndpointSettings

_LONGEST_WAIT_S = 3600.0
_WHOLE_S = 600.0
"""How long an answer may take that is asked for in one piece, and so shows no beginning."""


def open_clients(
    names: Iterable[str],
    engines: Iterable[EngineConfig],
    *,
    concurrency: int,
    sinks: tuple[RecordSink, ...] = (),
) -> dict[str, AsyncClient]:
    """A client for each of ``names``: an engine of ``engines``, or a ``provider/model``."""
    known: Mapping[str, EngineConfig] = {each.name: each for each in engines}
    endpoint = EndpointSettings(
        max_running=concurrency,
        max_waiting=100 * concurrency,
        queue_s=_LONGEST_WAIT_S,
        # Who asks again, and when, is told by ``pace``, which sees every attempt so.
        retry=None,
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


def open_paces(
    clients: Mapping[str, AsyncClient],
    engines: Iterable[EngineConfig],
    settings: PaceSettings,
    *,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    clock: Clock | None = None,
) -> dict[str, Pace]:
    """The pace at which each of ``clients`` is asked.

    Engines of one provider, address and key share an account. Its limits are what one of them
    says; ``requests_per_minute`` and ``tokens_per_minute`` are those of accounts of which none does.
    Raises LLMInvalidRequestError where two say different things.
    """
    known = {each.name: each for each in engines}
    by_account: dict[tuple[str | None, ...], list[str]] = {}
    for name in clients:
        by_account.setdefault(_account_of(name, known.get(name)), []).append(name)
    clock = clock or SystemClock()
    paces: dict[str, Pace] = {}
    for names in by_account.values():
        told = [known[name] for name in names if name in known]
        account = Account(
            clock,
            requests_per_minute=_one(told, "requests_per_minute", requests_per_minute),
            tokens_per_minute=_one(told, "tokens_per_minute", tokens_per_minute),
        )
        for name in names:
            paces[name] = Pace(name, clients[name].generate, account, settings, clock)
    return {name: paces[name] for name in clients}


def _account_of(name: str, engine: EngineConfig | None) -> tuple[str | None, ...]:
    if engine is None:
        return name.partition("/")[0], None, None, None
    if is_started(engine):
        return ("", name)
    return engine.backend, engine.endpoint, engine.api_key, engine.api_key_env


def _one(engines: Sequence[EngineConfig], limit: str, otherwise: float | None) -> float | None:
    said = [(each.name, getattr(each, limit)) for each in engines]
    given = [(name, value) for name, value in said if value is not None]
    for name, value in given[1:]:
        if value != given[0][1]:
            raise LLMInvalidRequestError(
                f"engines {given[0][0]!r} and {name!r} ask the same provider with the same key, and "
                f"their {limit} are {given[0][1]:g} and {value:g}: it counts both together, so give "
                "both the same number, or one of them none",
                param=limit,
            )
    return given[0][1] if given else otherwise


def is_started(engine: EngineConfig) -> bool:
    """Whether its server is one that we start and stop."""
    return engine.endpoint is None and engine.backend in known_backends()
