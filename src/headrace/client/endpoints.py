"""The endpoints that a client talks to: found by a model's name, opened at first use, shared."""

from __future__ import annotations

import hashlib

from attrs import evolve, frozen

from headrace.backends.pricing import price_of
from headrace.backends.providers import Provider, provider, split_model, usual_base_url
from headrace.backends.remote import Remote
from headrace.client.settings import Settings
from headrace.contracts.capabilities import BackendCapabilities
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.net.clock import SystemClock, World
from headrace.net.pool import PooledTransport
from headrace.net.transport import TimeLimits
from headrace.numbers.live import Tally
from headrace.traffic.call import Traffic
from headrace.traffic.endpoint import open_lane
from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane


@frozen(kw_only=True)
class Endpoint:
    """One provider as this client reaches it."""

    row: Provider
    base_url: str
    lane: Lane

    @property
    def provider(self) -> str:
        return self.row.name

    @property
    def config_hash(self) -> str:
        """Of what decides where and how it is asked; the key is no part of it."""
        told = f"{self.row!r} {self.base_url}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@frozen(kw_only=True)
class Way:
    """A request on its way: the endpoint first asked, what it is asked, and who is asked next."""

    endpoint: Endpoint
    request: LLMRequest
    fallbacks: tuple[Alternative, ...] = ()


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
        self.tally = Tally(self.clock.monotonic())
        self.traffic = Traffic(self.clock, self.tally, settings.sinks, price=price_of)
        self._open: dict[str, Endpoint] = {}
        self._capabilities: dict[tuple[str, str], BackendCapabilities] = {}

    def pick(self, request: LLMRequest) -> Way:
        """Where ``request`` goes.

        Raises LLMInvalidRequestError without a model, LLMAuthError without a key that is needed,
        and LLMCapabilityError where no model named can do what is asked.
        """
        names = [request.model or self._settings.model, *self._settings.fallbacks]
        lacks: LLMCapabilityError | None = None
        able: list[tuple[Endpoint, str]] = []
        for name in names:
            row, model = self._split(name)
            try:
                self._require(row, model, request)
            except LLMCapabilityError as lack:
                lacks = lacks or lack
                continue
            able.append((self._endpoint(row, request), model))
        if not able:
            assert lacks is not None
            raise lacks
        (first, model), *others = able
        return Way(
            endpoint=first,
            request=evolve(request, model=model),
            fallbacks=tuple(
                Alternative(lane=other.lane, model=other_model) for other, other_model in others
            ),
        )

    def pick_embedding(self, request: EmbeddingRequest) -> tuple[Endpoint, EmbeddingRequest]:
        """Where ``request`` goes, and what is asked there."""
        row, model = self._split(request.model or self._settings.model)
        return self._endpoint(row, request), evolve(request, model=model)

    def capabilities(self, name: str) -> BackendCapabilities:
        """What the model of that name can do, as far as our data knows it."""
        row, model = self._split(name)
        return self._abilities(row, model)

    def describe(self) -> dict[str, object]:
        """The state of each endpoint that was used, ready for JSON."""
        from headrace.contracts.convert import to_plain

        return {
            endpoint.provider: {
                "base_url": endpoint.base_url,
                "stats": to_plain(endpoint.lane.stats()),
            }
            for endpoint in self._open.values()
        }

    async def aclose(self) -> None:
        """Close the connections; a transport that was handed in stays open."""
        for endpoint in self._open.values():
            await endpoint.lane.backend.aclose()
        if self._own_transport is not None:
            await self._own_transport.aclose()

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

    def _endpoint(self, row: Provider, request: LLMRequest | EmbeddingRequest) -> Endpoint:
        known = self._open.get(row.name)
        if known is not None:
            return known
        settings = self._settings
        base_url = settings.base_url or usual_base_url(row, settings.credentials.environment)
        if base_url is None:
            variables = " or ".join(row.base_url_env)
            hint = f"set {variables}, or hand in base_url" if variables else "hand in base_url"
            raise LLMInvalidRequestError(
                f"provider {row.name!r} has no address of its own: {hint}", param="base_url"
            )
        key = settings.api_key
        if key is None and not request.metadata.get("api_key"):
            find = settings.credentials.require if row.needs_key else None
            found = (
                find(row.name, row.key_env)
                if find is not None
                else settings.credentials.find(row.key_env)
            )
            key = None if found is None else found.secret
        remote = Remote(
            name=row.name,
            provider=row,
            base_url=base_url,
            world=self.world,
            key=key,
            limits=TimeLimits(
                connect_s=settings.connect_s,
                first_byte_s=settings.first_byte_s,
                idle_s=settings.idle_s,
            ),
        )
        endpoint = Endpoint(
            row=row, base_url=base_url, lane=open_lane(remote, self.clock, settings.endpoint)
        )
        if key is not None or not row.needs_key:
            # One that was opened for a single call's own key must not serve the next without it.
            self._open[row.name] = endpoint
        return endpoint

    def _require(self, row: Provider, model: str, request: LLMRequest) -> None:
        from headrace.backends.capabilities import require

        require(request, self._abilities(row, model), model=model)

    def _abilities(self, row: Provider, model: str) -> BackendCapabilities:
        known = self._capabilities.get((row.name, model))
        if known is None:
            from headrace.backends.capabilities import capabilities_of

            known = self._capabilities[row.name, model] = capabilities_of(row, model)
        return known
