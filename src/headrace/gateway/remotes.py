"""From what the configuration says of a remote backend to the route that leads to it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from headrace.backends.providers import Provider, provider, usual_base_url
from headrace.backends.remote import Remote
from headrace.backends.scheme import by_scheme
from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMUnavailableError
from headrace.gateway.backend_config import BackendConfig
from headrace.gateway.config import Config, row_of
from headrace.gateway.engines_config import EngineEntry
from headrace.gateway.routes import Route
from headrace.net.clock import World
from headrace.net.proxy import find_proxies, through
from headrace.net.transport import TimeLimits
from headrace.stores.credentials import Credentials, FoundKey
from headrace.stores.secret import Secret
from headrace.traffic.breaker import BreakerPolicy
from headrace.traffic.endpoint import EndpointSettings, open_lane_of_keys
from headrace.traffic.lane import Lane
from headrace.traffic.retry import RetryPolicy


@frozen(kw_only=True)
class Placed:
    """A remote backend: what the configuration says of it, and the route that was made of that.

    ``leaving`` are the lanes that it had before, on which some calls still run or wait.
    """

    backend: BackendConfig
    row: Provider
    route: Route
    leaving: tuple[Lane, ...] = ()

    @property
    def lane(self) -> Lane:
        """The way to it, as the next call finds it."""
        return self.route.lane


def place(config: Config, world: World, before: Sequence[Placed] = ()) -> tuple[Placed, ...]:
    """Every remote backend of ``config``; raises as ``open_remote``.

    One of which the same was said ``before`` keeps its lane, with who runs and waits there, what it
    did so far and how its circuit stands. One that is changed keeps what it did so far.
    """
    left, placed = list(before), []
    names = [backend.name for backend in config.backends]
    for backend in config.backends:
        row = row_for(config, backend)
        route = remote_route(config, backend, world)
        same = next((p for p in left if p.backend == backend and p.row == row), None)
        if same is not None:
            left.remove(same)
            route = _kept(same.route, route)
        # Of several with one name nobody could tell which one was changed.
        was = same or next(
            (
                p
                for p in before
                if p.backend.name == backend.name and names.count(p.backend.name) < 2
            ),
            None,
        )
        leaving: tuple[Lane, ...] = ()
        if was is not None:
            old = (*was.leaving, *(() if was.lane is route.lane else (was.lane,)))
            leaving = tuple(lane for lane in old if lane.running or lane.waiting)
            if route.lane.counts is not was.lane.counts:
                route = evolve(route, lane=evolve(route.lane, counts=was.lane.counts))
        placed.append(Placed(backend=backend, row=row, route=route, leaving=leaving))
    return tuple(placed)


def _kept(old: Route, new: Route) -> Route:
    """``old``, unless its key or address was found to be another one: then the same lane with that."""
    if _asked(old.lane) == _asked(new.lane):
        return old
    if old.lane.keys is None and new.lane.keys is None:
        return evolve(old, lane=evolve(old.lane, backend=new.lane.backend))
    return evolve(old, lane=evolve(new.lane, counts=old.lane.counts))


def _asked(lane: Lane) -> list[tuple[Secret | None, str]]:
    """The keys and addresses by which ``lane`` asks."""
    backends = [lane.backend] if lane.keys is None else [key.backend for key in lane.keys]
    assert all(isinstance(each, Remote) for each in backends)
    return [(each.key, each.base_url) for each in backends if isinstance(each, Remote)]


def remote_route(config: Config, backend: BackendConfig, world: World) -> Route:
    """The way to ``backend``; raises as ``open_remote``."""
    remotes = open_remotes(config, backend, world)
    return Route(
        model=backend.models[0]
        if backend.models and "*" not in backend.models[0]
        else backend.name,
        lane=open_lane_of_keys(remotes, world.clock, endpoint_settings(config, backend)),
        patterns=backend.models,
        passes_names=True,
        format=remotes[0].provider.format,
        created=int(world.clock.wall()),
    )


def open_remote(
    config: Config, backend: BackendConfig, world: World, credentials: Credentials | None = None
) -> Remote:
    """``backend`` with its address and key, the first where it has several; raises as
    ``open_remotes``."""
    return open_remotes(config, backend, world, credentials)[0]


def open_remotes(
    config: Config, backend: BackendConfig, world: World, credentials: Credentials | None = None
) -> list[Remote]:
    """``backend`` with its address, once for each of its keys.

    Raises LLMInvalidRequestError where it has no address, and LLMAuthError where it has no key and
    needs one.
    """
    credentials = credentials or Credentials()
    row = row_for(config, backend)
    keys = keys_of(backend, row, credentials)
    base_url = address_of(backend, row, credentials)
    proxies = find_proxies(backend.proxy, credentials.environment)
    remote = by_scheme(
        Remote(
            name=backend.name,
            provider=row,
            base_url=base_url,
            world=evolve(world, transport=through(world.transport, proxies, base_url)),
            model=backend.model,
            metrics_url=backend.metrics_url,
            limits=TimeLimits(
                connect_s=backend.connect_timeout_ms / 1000,
                first_byte_s=backend.first_token_timeout_ms / 1000,
                idle_s=backend.idle_timeout_ms / 1000,
            ),
        )
    )
    return [evolve(remote, key=None if key is None else key.secret) for key in keys]


def row_for(config: Config, backend: BackendConfig) -> Provider:
    """The row of its provider, which the configuration may have brought along."""
    row = row_of(config, backend.provider) or provider(backend.provider)
    if backend.asked_whole is None:
        return row
    return evolve(row, asked_whole=backend.asked_whole)


def address_of(backend: BackendConfig, row: Provider, credentials: Credentials) -> str:
    """Where it is: by its own entry, by its provider's variables, or by its provider's row."""
    base_url = backend.base_url or usual_base_url(row, credentials.environment)
    if base_url is None:
        variables = "".join(f", or set {name}" for name in row.base_url_env)
        raise LLMInvalidRequestError(
            f"backend {backend.name!r} has no base_url, and its provider {row.name!r} has none of "
            f"its own: give it one{variables}",
            param="backends",
        )
    return base_url.rstrip("/")


def key_of(backend: BackendConfig, row: Provider, credentials: Credentials) -> FoundKey | None:
    """Its key; raises LLMAuthError where there is none and there has to be one."""
    return keys_of(backend, row, credentials)[0]


def keys_of(
    backend: BackendConfig, row: Provider, credentials: Credentials
) -> list[FoundKey | None]:
    """Its keys, at least one; raises LLMAuthError where one that is named is not there, or none is
    where there has to be one."""
    if backend.api_keys or backend.api_key_envs:
        given = [credentials.find((), given=key) for key in backend.api_keys]
        whose = f"backend {backend.name!r}"
        return [*given, *(credentials.require(whose, (name,)) for name in backend.api_key_envs)]
    return [_one_key(backend, row, credentials)]


def _one_key(backend: BackendConfig, row: Provider, credentials: Credentials) -> FoundKey | None:
    usual = row.key_env if backend.key_from_environment else ()
    names = usual if backend.api_key_env is None else (backend.api_key_env,)
    if row.needs_key or backend.api_key_env is not None:
        return credentials.require(f"backend {backend.name!r}", names, given=backend.api_key)
    return credentials.find(names, given=backend.api_key)


def queue_of(config: Config, said: BackendConfig | EngineEntry) -> EndpointSettings:
    """How many it takes, and who waits; its queue is as all others are where it does not say."""
    size, wait_ms = said.queue_size, said.queue_timeout_ms
    return EndpointSettings(
        max_running=said.max_concurrent_requests,
        max_waiting=config.batching.max_queue_size if size is None else size,
        queue_s=(config.batching.timeout_ms if wait_ms is None else wait_ms) / 1000,
        requests_per_minute=said.requests_per_minute,
        tokens_per_minute=said.tokens_per_minute,
    )


def endpoint_settings(config: Config, backend: BackendConfig) -> EndpointSettings:
    """How ``backend`` is treated."""
    # What a backend does answer is for the caller to act upon, unless the operator says otherwise.
    kind = LLMError if backend.retry_on == "transient" else LLMUnavailableError
    return evolve(
        queue_of(config, backend),
        retry=RetryPolicy(
            retries=backend.max_retries,
            first_delay_s=backend.initial_retry_delay,
            factor=backend.backoff_factor,
            max_delay_s=backend.max_retry_delay,
            jitter=backend.retry_jitter,
            kinds=(kind,),
        )
        if backend.max_retries
        else None,
        retry_ratio=backend.retry_ratio,
        breaker=BreakerPolicy(
            failures=backend.breaker_failures, open_s=backend.breaker_open_ms / 1000
        )
        if backend.breaker_failures
        else None,
        first_token_s=backend.first_token_timeout_ms / 1000,
        whole_s=(backend.whole_answer_timeout_ms or 10 * backend.first_token_timeout_ms) / 1000,
        total_s=None if backend.timeout_ms is None else backend.timeout_ms / 1000,
    )
