"""From a provider's row, or from what is said of an endpoint, to the endpoint itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from headrace.backends.providers import Provider, provider, split_model, usual_base_url
from headrace.backends.remote import Remote
from headrace.backends.scheme import by_scheme
from headrace.client.named import own_row
from headrace.client.settings import Settings
from headrace.contracts.errors import LLMAuthError, LLMInvalidRequestError
from headrace.net.clock import World
from headrace.net.pool import PooledTransport
from headrace.net.proxy import find_proxies, through
from headrace.net.transport import TimeLimits
from headrace.stores.secret import Secret
from headrace.traffic.endpoint import open_lane, open_lane_of_keys
from headrace.traffic.lane import Lane

if TYPE_CHECKING:
    from headrace.client.endpoint_config import EndpointConfig


@frozen(kw_only=True)
class Endpoint:
    """One provider as this client reaches it."""

    row: Provider
    base_url: str
    lane: Lane
    has_key: bool
    config_hash: str = field(init=False)
    """Of what decides where and how it is asked; the key is no part of it."""

    @config_hash.default
    def _hash_of_config(self) -> str:
        told = f"{self.row!r} {self.base_url}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def provider(self) -> str:
        return self.row.name


class Opening:
    """Opens endpoints as a client's ``settings`` have it; ``own_transport`` is the client's, where
    none was handed in."""

    def __init__(
        self, settings: Settings, world: World, own_transport: PooledTransport | None
    ) -> None:
        self._settings, self._world, self._own_transport = settings, world, own_transport

    def open(self, row: Provider, *, own_key: bool) -> Endpoint:
        """The endpoint of a provider; with ``own_key`` the call brings a key and needs no other."""
        settings = self._settings
        usual = self._usual_row()
        is_usual = usual is None or row.name == usual.name
        base_url = settings.base_url if is_usual else None
        base_url = base_url or usual_base_url(row, settings.credentials.environment)
        if base_url is None:
            raise _no_address(row)
        # As for the address: what was handed in is for the provider that was meant by it.
        key = settings.api_key if is_usual else None
        if key is None:
            key = self._found_key(row, own_key=own_key)
        return Endpoint(
            row=row,
            base_url=base_url,
            lane=open_lane(
                self._remote(row.name, row, base_url, key), self._world.clock, settings.endpoint
            ),
            has_key=key is not None,
        )

    def made(self, config: EndpointConfig) -> Endpoint:
        """The endpoint that ``config`` describes, which nobody finds yet; raises LLMAuthError where
        it has no key and needs one."""
        row = own_row(config.row())
        credentials = self._settings.credentials
        base_url = config.base_url or usual_base_url(row, credentials.environment)
        if base_url is None:
            raise _no_address(row)
        keys: list[Secret | None] = list(config.api_keys)
        whose = f"endpoint {config.name!r}"
        keys += [credentials.require(whose, (name,)).secret for name in config.api_key_env]
        if not keys:
            # A key is for the provider's own address; another one is shown what it was given.
            at_home = config.base_url is None
            keys = [self._found_key(row, own_key=False) if at_home else None]
            if row.needs_key and keys == [None]:
                raise LLMAuthError(
                    f"{whose} has a base_url of its own and no key: give api_key", provider=None
                )
        remotes = [self._remote(config.name, row, base_url, key) for key in keys]
        return Endpoint(
            row=row,
            base_url=base_url,
            lane=open_lane_of_keys(remotes, self._world.clock, config.settings()),
            has_key=keys != [None],
        )

    def _remote(self, name: str, row: Provider, base_url: str, key: Secret | None) -> Remote:
        settings = self._settings
        return by_scheme(
            Remote(
                name=name,
                provider=row,
                base_url=base_url,
                world=self._world_for(base_url),
                key=key,
                limits=TimeLimits(
                    connect_s=settings.connect_s,
                    first_byte_s=settings.first_byte_s,
                    idle_s=settings.idle_s,
                ),
            )
        )

    def _world_for(self, base_url: str) -> World:
        """By way of the proxy, if any; a transport that was handed in finds its own way."""
        settings = self._settings
        if self._own_transport is None:
            return self._world
        proxies = find_proxies(settings.proxy, settings.credentials.environment)
        return evolve(self._world, transport=through(self._own_transport, proxies, base_url))

    def _found_key(self, row: Provider, *, own_key: bool) -> Secret | None:
        credentials = self._settings.credentials
        try:
            if row.needs_key and not own_key:
                return credentials.require(row.name, row.key_env).secret
            found = credentials.find(row.key_env)
        except LLMAuthError:
            if own_key:  # a file that may not be read is no matter then
                return None
            raise
        return None if found is None else found.secret

    def _usual_row(self) -> Provider | None:
        """The provider that the settings' address and key are meant for; ``None``: any named."""
        settings = self._settings
        if settings.base_url is not None or settings.provider is not None:
            return provider(settings.provider or "openai-compatible")
        return None if settings.model is None else split_model(settings.model)[0]


def _no_address(row: Provider) -> LLMInvalidRequestError:
    variables = " or ".join(row.base_url_env)
    hint = f"set {variables}, or hand in base_url" if variables else "hand in base_url"
    return LLMInvalidRequestError(
        f"provider {row.name!r} has no address of its own: {hint}", param="base_url"
    )
