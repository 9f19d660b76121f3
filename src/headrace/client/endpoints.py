"""The endpoints that a client talks to: found by a model's name, opened at first use, shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from attrs import evolve, frozen

from headrace.backends.pricing import price_of, priced_by
from headrace.backends.providers import Provider, provider, split_model
from headrace.backends.remote import Remote
from headrace.client.choosing import Choosing
from headrace.client.named import NamedEndpoints
from headrace.client.opening import Endpoint, Opening
from headrace.client.settings import Settings
from headrace.contracts.capabilities import BackendCapabilities
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMInvalidRequestError,
    LLMUnavailableError,
)
from headrace.contracts.inference import InferRequest
from headrace.contracts.quick import changed
from headrace.contracts.ranking import ClassificationRequest, RerankRequest
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.routing import RouteDecision
from headrace.net.clock import SystemClock, World
from headrace.net.pool import PooledTransport
from headrace.numbers.live import Tally
from headrace.traffic.call import Traffic
from headrace.traffic.endpoint import open_lane
from headrace.traffic.fallback import Alternative, without_key
from headrace.traffic.hedge import Hedging
from headrace.traffic.lane import Lane

R = TypeVar("R", EmbeddingRequest, RerankRequest, ClassificationRequest)

if TYPE_CHECKING:
    from headrace.backends.managed.opening import Opened
    from headrace.client.batches import Batches
    from headrace.client.endpoint_config import EndpointConfig
    from headrace.traffic.retry import RetryPolicy


@frozen(kw_only=True)
class Way:
    """A request on its way: the endpoint first asked, what it is asked, and who is asked next, also
    where the first token is late (``hedging``); ``decision`` is how they were chosen, where they
    were."""

    endpoint: Endpoint
    request: LLMRequest
    fallbacks: tuple[Alternative, ...] = ()
    decision: RouteDecision | None = None
    hedging: Hedging | None = None


class Endpoints:
    """All endpoints of one client, with the traffic between them and the calls."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.clock = settings.clock or SystemClock()
        self._own_transport = (
            PooledTransport(max_connections=settings.max_connections)
            if settings.transport is None
            else None
        )
        transport = settings.transport or self._own_transport
        assert transport is not None
        self.world = World(transport=transport, clock=self.clock)
        self._opening = Opening(settings, self.world, self._own_transport)
        self.tally = Tally(self.clock.monotonic())
        self._choosing = Choosing(settings.policy, self.clock, allow_unknown=settings.allow_unknown)
        sinks = (self._choosing.add, *settings.sinks)
        self.engine = None if settings.engine is None else self._engine_of(settings.engine)
        # A row of its own, equal to its provider's: fallbacks may name that provider too.
        self._engine_row = None if self.engine is None else evolve(self.engine.provider)
        price = (
            price_of
            if settings.engine is None or self._engine_row is None
            else priced_by(settings.engine, self._engine_row.name)
        )
        self.traffic = Traffic(self.clock, self.tally, sinks, price=price)
        self._open: dict[str, Endpoint] = {}
        self.named_ones = NamedEndpoints()
        self._hedgings: dict[tuple[str, str | None], Hedging] = {}
        self._closed = False
        self._capabilities: dict[tuple[str, str], BackendCapabilities] = {}

    def named(self, model: str | None) -> tuple[Provider, str]:
        """The provider of ``model``, or of the default one, and the model's own name there."""
        engine = self._settings.engine
        if engine is not None and model in (None, "", engine.name, engine.model):
            assert self._engine_row is not None
            return self._engine_row, engine.model
        asked = model or self._settings.model
        return self.named_ones.find(asked) or self._split(asked)

    def pick(self, request: LLMRequest, row: Provider | None = None) -> Way:
        """Where ``request`` goes; its model's name is the provider's own where ``row`` is given.

        Raises LLMInvalidRequestError without a model, LLMAuthError without a key that is needed,
        LLMCapabilityError where no model named can do what is asked, or none within the limits of its
        task profile, and LLMUnavailableError once closed.
        """
        self._refuse_if_closed()
        looks = self._choosing.looks_at(request)
        if not self._settings.fallbacks and not looks:
            if row is None:
                row, model = self.named(request.model)
                request = changed(request, model=model)
            self._require(row, request.model or "", request)
            own_key = bool(request.metadata.get("api_key"))
            return Way(
                endpoint=self._endpoint(row, own_key=own_key),
                request=request,
                hedging=self._hedging(row, request.model),
            )
        ways = [self.named(request.model) if row is None else (row, request.model or "")]
        ways += [
            self.named_ones.find(name) or split_model(name) for name in self._settings.fallbacks
        ]
        asked, _ = ways[0]
        lacks: LLMCapabilityError | None = None
        able: list[tuple[Endpoint, str]] = []
        for row, model in ways:
            try:
                self._require(row, model, request)
            except LLMCapabilityError as lack:
                lacks = lacks or lack
                continue
            # A call's own key is for the provider that it names, and no other may see it.
            own_key = row.name == asked.name and bool(request.metadata.get("api_key"))
            able.append((self._endpoint(row, own_key=own_key), model))
        if not able:
            assert lacks is not None
            raise lacks
        decision = None
        if looks:
            able, decision = self._chosen(able, request)
        (first, model), *others = able
        if first.row.name != asked.name and "api_key" in request.metadata:
            request = evolve(request, metadata=without_key(request.metadata))
        return Way(
            endpoint=first,
            request=evolve(request, model=model),
            fallbacks=tuple(
                Alternative(lane=other.lane, model=other_model) for other, other_model in others
            ),
            decision=decision,
            hedging=self._hedging(first.row, model),
        )

    def _chosen(
        self, able: list[tuple[Endpoint, str]], request: LLMRequest
    ) -> tuple[list[tuple[Endpoint, str]], RouteDecision | None]:
        ways = [Alternative(lane=endpoint.lane, model=model) for endpoint, model in able]
        chosen = self._choosing.choose(ways, request, request.model or able[0][1])
        by_way = dict(zip(map(id, ways), able, strict=True))
        return [by_way[id(way)] for way in chosen.ways], chosen.decision

    def _hedging(self, row: Provider, model: str | None) -> Hedging | None:
        """What the calls that ask ``model`` first know of one another."""
        if self._settings.hedge is None:
            return None
        asked = row.name, model
        if asked not in self._hedgings:
            self._hedgings[asked] = Hedging(self._settings.hedge)
        return self._hedgings[asked]

    def pick_by_model(self, model: str | None, metadata: dict[str, object]) -> tuple[Endpoint, str]:
        """Where a call for the model of that name goes, and the model's own name there."""
        self._refuse_if_closed()
        row, own = self.named(model)
        return self._endpoint(row, own_key=bool(metadata.get("api_key"))), own

    def pick_single(self, request: R) -> tuple[Endpoint, R]:
        """Where ``request``, whose answer is one object, goes; and what is asked there."""
        self._refuse_if_closed()
        row, model = self.named(request.model)
        own_key = bool(request.metadata.get("api_key"))
        return self._endpoint(row, own_key=own_key), evolve(request, model=model)

    def pick_inference(self, request: InferRequest) -> tuple[Endpoint, InferRequest]:
        """Where ``request`` goes, and what is asked there."""
        self._refuse_if_closed()
        row, model = self.named(request.model)
        own_key = bool(request.metadata.get("api_key"))
        return self._endpoint(row, own_key=own_key), evolve(request, model=model)

    def batches(self, name: str | None, retry: RetryPolicy | None = None) -> Batches:
        """The batches at the provider of the model of that name, or of the default one.

        Raises LLMCapabilityError where there is no batch API.
        """
        from headrace.backends.batches import BatchApi
        from headrace.client.batches import Batches

        self._refuse_if_closed()
        row, model = self.named(name)
        backend = self._endpoint(row, own_key=False).lane.backend
        if not isinstance(backend, Remote):
            raise LLMCapabilityError(
                f"{backend.name} is an engine that we start, and has no batch API; ask it live",
                param="mode",
            )
        engine = self._settings.engine if row is self._engine_row else None
        api = BatchApi(remote=backend, model=model, engine=engine)
        retry = retry or self._settings.endpoint.retry
        return Batches(api, self.clock, self.world.random, retry=retry)

    def capabilities(self, name: str) -> BackendCapabilities:
        """What the model of that name can do, as far as our data knows it."""
        row, model = self.named(name)
        return self._abilities(row, model)

    def describe(self) -> dict[str, object]:
        """The state of each endpoint that was used, ready for JSON."""
        from headrace.contracts.convert import to_plain

        opened = [(each.provider, each) for each in self._open.values()]
        opened += [(each.name, each.endpoint) for each in self.named_ones]
        return {
            name: {
                "base_url": endpoint.base_url,
                "stats": to_plain(endpoint.lane.stats()),
            }
            for name, endpoint in opened
        }

    def server_snapshot(self) -> dict[str, object] | None:
        """The engine's server, ready for JSON; None where we start none."""
        from headrace.contracts.convert import to_plain

        if self.engine is None or isinstance(self.engine, Remote):
            return None
        plain = to_plain(self.engine.snapshot())
        assert isinstance(plain, dict)
        return plain

    async def start_engine(self) -> str:
        """Have it run; where it answers then."""
        self._refuse_if_closed()
        engine = self._required_engine()
        return engine.base_url if isinstance(engine, Remote) else await engine.ensure_running()

    async def stop_engine(self) -> None:
        """End it; what somebody else runs is left alone."""
        engine = self._required_engine()
        if not isinstance(engine, Remote):
            await engine.stop()

    def _required_engine(self) -> Opened:
        if self.engine is None:
            raise LLMInvalidRequestError(
                "this client has no engine: name one, as in Client(engine='local')", param="engine"
            )
        return self.engine

    async def aclose(self) -> None:
        """Close the connections; a transport that was handed in stays open."""
        self._closed = True
        for endpoint in (*self._open.values(), *(each.endpoint for each in self.named_ones)):
            await endpoint.lane.backend.aclose()
        if self.engine is not None:  # it may have been started without having been asked
            await self.engine.aclose()
        if self._own_transport is not None:
            await self._own_transport.aclose()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise LLMUnavailableError("this client is closed; make another", transient=False)

    def _split(self, name: str | None) -> tuple[Provider, str]:
        settings = self._settings
        if not name:
            raise LLMInvalidRequestError(
                "no model: name one in the request, or as the client's default, such as "
                "Client('openai/gpt-5-mini')",
                param="model",
            )
        if settings.base_url is not None or settings.provider is not None:
            return provider(settings.provider or "openai-compatible"), name
        return split_model(name)

    def _endpoint(self, row: Provider, *, own_key: bool) -> Endpoint:
        """The one endpoint of ``row``; with ``own_key`` the call brings a key and needs no other."""
        if row is self._engine_row:
            return self._open.get("engine") or self._open.setdefault(
                "engine", self._engine_endpoint()
            )
        named = self.named_ones.of_row(row)
        endpoint = self._open.get(row.name) if named is None else named.endpoint
        if endpoint is None:
            endpoint = self._open[row.name] = self._opening.open(row, own_key=own_key)
        if row.needs_key and not endpoint.has_key and not own_key:
            self._settings.credentials.require(row.name, row.key_env)
        return endpoint

    def _engine_of(self, config: EngineConfig) -> Opened:
        from headrace.backends.managed.opening import key_of_engine, open_engine

        key = key_of_engine(config, self._settings.credentials)
        return open_engine(config, self.world, key=key)

    def _engine_endpoint(self) -> Endpoint:
        engine, row, config = self.engine, self._engine_row, self._settings.engine
        assert engine is not None
        assert row is not None
        assert config is not None
        return Endpoint(
            row=row,
            base_url=config.endpoint or f"engine {config.name}",
            lane=open_lane(engine, self.clock, self._settings.endpoint),
            has_key=True,
        )

    def made(self, config: EndpointConfig) -> Endpoint:
        """The endpoint that ``config`` describes, which nobody finds yet; raises LLMAuthError where
        it has no key and needs one."""
        self._refuse_if_closed()
        return self._opening.made(config)

    def lane_named(self, name: str) -> Lane | None:
        """The lane of the endpoint that was made by that name, or of a provider that was asked."""
        named = self.named_ones.get(name)
        endpoint = self._open.get(name) if named is None else named.endpoint
        return None if endpoint is None else endpoint.lane

    def _require(self, row: Provider, model: str, request: LLMRequest) -> None:
        _require()(request, self._abilities(row, model), model=model)

    def _abilities(self, row: Provider, model: str) -> BackendCapabilities:
        named = self.named_ones.of_row(row)
        if named is not None and named.capabilities is not None:
            return named.capabilities
        known = self._capabilities.get((row.name, model))
        if known is None:
            from headrace.backends.capabilities import capabilities_of

            known = self._capabilities[row.name, model] = capabilities_of(row, model)
        return known


@cache
def _require() -> Callable[..., None]:
    # An import statement in every call would cost it a microsecond.
    from headrace.backends.capabilities import require

    return require
