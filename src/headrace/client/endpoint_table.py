"""The endpoints of a client that are made, changed and removed while it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve, frozen

from headrace.client.endpoint_config import EndpointConfig
from headrace.client.named import Named, own_row
from headrace.contracts.errors import LLMEndpointNotFoundError, LLMInvalidRequestError
from headrace.contracts.snapshot import EndpointStats
from headrace.traffic.endpoint import EndpointSettings, open_lane
from headrace.traffic.lane import Lane

if TYPE_CHECKING:
    from headrace.backends.row import Provider
    from headrace.client.async_client import AsyncClient
    from headrace.client.endpoints import Endpoints
    from headrace.client.sync_client import Client
    from headrace.contracts.capabilities import BackendCapabilities
    from headrace.contracts.protocols import Backend
    from headrace.net.clock import World


T = TypeVar("T")


class AsyncEndpoints:
    """``client.endpoints``: an endpoint's name, or ``name/model``, is a model's name for the client.

    Who changes or removes one changes it for the calls that begin then; those under way, and those
    that wait, finish by what they began with. Counts go on over a change. Everything here is done
    at once, so nothing is awaited.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._configs: dict[str, EndpointConfig] = {}
        self._leaving: dict[str, list[Lane]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._configs

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._configs))

    def __len__(self) -> int:
        return len(self._configs)

    def create(self, name: str, /, **settings: Any) -> EndpointConfig:
        """A new endpoint; ``settings`` are the fields of EndpointConfig, and ``api_key`` is one key.

        Raises LLMInvalidRequestError that names what is wrong, and LLMAuthError where there is no
        key and there has to be one.
        """
        if name in self._configs:
            raise LLMInvalidRequestError(
                f"there is an endpoint {name!r} already; change it, or choose another name",
                param="name",
            )
        return self.put(EndpointConfig.of(name, settings))

    def change(self, name: str, /, **settings: Any) -> EndpointConfig:
        """Exchange the fields that are given, for the calls that begin from now on.

        Another ``base_url`` or ``provider`` takes its keys along only where they are given anew.
        """
        before = self.get(name)
        changed = before.changed(settings)
        moved = (before.base_url, before.provider) != (changed.base_url, changed.provider)
        if moved and before.api_keys and "api_keys" not in settings and "api_key" not in settings:
            raise LLMInvalidRequestError(
                "base_url or provider is another one, and its keys are not shown there unless they "
                "are given with it: give api_key as well, or api_key=None for none",
                param="api_key",
            )
        return self.put(changed)

    def remove(self, name: str) -> None:
        """Have it found no more."""
        self.get(name)
        del self._configs[name]
        self._leaving.pop(name, None)
        self._endpoints.named_ones.pop(name)

    def get(self, name: str) -> EndpointConfig:
        """What is said of it; raises LLMEndpointNotFoundError, which is a KeyError too."""
        config = self._configs.get(name)
        if config is None:
            raise self._unknown(name)
        return config

    def stats(self, name: str) -> EndpointStats:
        """What it did, and how it stands; also of a provider that was asked by its own name."""
        lane, leaving = self._lane(name), self._still_leaving(name)
        stats = lane.stats()
        return evolve(
            stats,
            name=name,
            running=stats.running + sum(each.running for each in leaving),
            waiting=stats.waiting + sum(each.waiting for each in leaving),
        )

    def reset_stats(self, name: str) -> None:
        """Count from nothing; calls under way count when they end."""
        self._lane(name).reset_stats()

    # For those who make endpoints in their own way.

    @property
    def world(self) -> World:
        """What the client's calls may touch."""
        return self._endpoints.world

    def put(self, config: EndpointConfig) -> EndpointConfig:
        """Have it found by its name, in the place of the one before."""
        endpoint = self._endpoints.made(config)
        before = self._endpoints.named_ones.get(config.name)
        if before is not None:
            lane = before.endpoint.lane
            self._leaving.setdefault(config.name, []).append(lane)
            endpoint = evolve(endpoint, lane=evolve(endpoint.lane, counts=lane.counts))
        self._endpoints.named_ones.put(
            Named(name=config.name, endpoint=endpoint, model=config.model)
        )
        self._configs[config.name] = config
        return config

    def configs(self) -> tuple[EndpointConfig, ...]:
        """All that were made."""
        return tuple(self._configs.values())

    def put_backend(
        self,
        name: str,
        backend: Backend,
        row: Provider,
        model: str,
        capabilities: BackendCapabilities,
        settings: EndpointSettings | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """An endpoint at which ``backend`` answers, whatever that is."""
        from headrace.client.opening import Endpoint

        lane = open_lane(backend, self._endpoints.clock, settings)
        if max_tokens is not None:
            lane = evolve(lane, admission=_counting(lane, max_tokens), one_answer_a_call=True)
        endpoint = Endpoint(row=own_row(row), base_url=name, lane=lane, has_key=True)
        self._endpoints.named_ones.put(
            Named(name=name, endpoint=endpoint, model=model, capabilities=capabilities)
        )

    async def let_go(self, name: str) -> None:
        """End the backend that was put there."""
        named = self._endpoints.named_ones.pop(name)
        if named is not None:
            await named.endpoint.lane.backend.aclose()

    def _lane(self, name: str) -> Lane:
        lane = self._endpoints.lane_named(name)
        if lane is None:
            raise self._unknown(name)
        return lane

    def _still_leaving(self, name: str) -> list[Lane]:
        left = [lane for lane in self._leaving.get(name, ()) if lane.running or lane.waiting]
        if name in self._leaving:
            self._leaving[name] = left
        return left

    def _unknown(self, name: object) -> LLMEndpointNotFoundError:
        from difflib import get_close_matches

        known = list(self._configs)
        near = get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        there = f"known: {', '.join(known)}" if known else "none was made"
        return LLMEndpointNotFoundError(
            f"there is no endpoint {str(name)[:200]!r}; {hint}{there}", param="name"
        )


def _counting(lane: Lane, max_tokens: int) -> Any:
    from headrace.traffic.admission import Admission

    door = lane.admission
    return Admission(
        max_running=door.max_running,
        max_waiting=door.max_waiting,
        timeout_s=door.timeout_s,
        max_tokens=max_tokens,
        clock=door.clock,
    )


@frozen
class SyncEndpoints:
    """As AsyncEndpoints, from any thread."""

    _client: Client

    def create(self, name: str, /, **settings: Any) -> EndpointConfig:
        """A new endpoint."""
        return self._run(lambda endpoints: endpoints.create(name, **settings))

    def change(self, name: str, /, **settings: Any) -> EndpointConfig:
        """Exchange the fields that are given, for the calls that begin from now on."""
        return self._run(lambda endpoints: endpoints.change(name, **settings))

    def remove(self, name: str) -> None:
        """Have it found no more."""
        self._run(lambda endpoints: endpoints.remove(name))

    def get(self, name: str) -> EndpointConfig:
        """What is said of it."""
        return self._run(lambda endpoints: endpoints.get(name))

    def stats(self, name: str) -> EndpointStats:
        """What it did, and how it stands."""
        return self._run(lambda endpoints: endpoints.stats(name))

    def reset_stats(self, name: str) -> None:
        """Count from nothing."""
        self._run(lambda endpoints: endpoints.reset_stats(name))

    def __contains__(self, name: object) -> bool:
        return self._run(lambda endpoints: name in endpoints)

    def __iter__(self) -> Iterator[str]:
        return self._run(iter)

    def __len__(self) -> int:
        return self._run(len)

    def _run(self, do: Callable[[AsyncEndpoints], T]) -> T:
        from headrace.client.portal import portal

        core: AsyncClient = self._client.on_portal()

        async def done() -> T:
            return do(core.endpoints)

        return portal().run(done)
