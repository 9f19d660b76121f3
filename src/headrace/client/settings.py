"""What a client is made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Self, get_args

from attrs import Factory, asdict, field, fields, frozen

from headrace.client.choosing import ClientPolicy
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.record import RecordSink
from headrace.net.clock import Clock
from headrace.net.proxy import ENVIRONMENT, check_proxy, masked
from headrace.net.transport import Transport
from headrace.stores.credentials import Credentials
from headrace.stores.secret import Secret, as_secret
from headrace.traffic.endpoint import EndpointSettings
from headrace.traffic.hedge import HedgePolicy

_NO_ENGINE = ("provider", "base_url", "api_key")


def _as_engine(engine: str | EngineConfig | None) -> EngineConfig | None:
    if isinstance(engine, str):
        from headrace.client.registry import get_engine_config

        return get_engine_config(engine)
    return engine


def _usual_endpoint(engine: EngineConfig | None) -> EndpointSettings:
    if engine is None:
        return EndpointSettings()
    # Engines compute many at once, and the first call waits until they have loaded their model.
    return EndpointSettings(
        max_running=32,
        queue_s=3600.0,
        total_s=None,
        requests_per_minute=engine.requests_per_minute,
        tokens_per_minute=engine.tokens_per_minute,
    )


def _one_of(known: Sequence[str]) -> Any:
    def check(_: object, attribute: Any, value: object) -> None:
        if value not in known:
            raise LLMInvalidRequestError(
                f"{attribute.name} is {value!r}, must be one of {', '.join(known)}",
                param=attribute.name,
            )

    return check


@frozen(kw_only=True)
class Settings:
    """The settings of Client and AsyncClient.

    ``model`` is the default, as ``provider/model``; where ``base_url`` (or ``provider``) is set it
    is the model's own name there. ``engine`` is an engine by its registered name, or its
    EngineConfig, in the place of a model: it is started by the first call, and ended with the client.
    ``fallbacks`` are further ``provider/model`` names, asked in order where the first cannot answer,
    and with ``hedge`` also where its first token is late; with another ``policy`` than ``ordered`` the best for each call goes first. A call's task profile
    may limit its cost and time: who breaks a limit is not asked, nor, without ``allow_unknown``, who
    cannot be judged for want of a price or of answers that were measured.
    ``endpoint`` bounds what goes to each provider (its queue,
    retries, breaker and limits a minute). ``connect_s``, ``first_byte_s`` and ``idle_s`` are the
    longest waits in seconds for a connection, for an answer to begin, and between its pieces.
    ``output`` says how answers as objects are asked for.
    ``proxy`` is the HTTP proxy on the way to every provider, as ``http://[user:password@]host:port``;
    "environment" is what ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` say, and
    ``None`` is none. This machine itself is always reached without.
    ``sinks`` get the record of every call. ``credentials`` says where keys are looked for, and
    ``transport`` and ``clock`` take the place of the network and of time, for tests.
    """

    model: str | None = None
    engine: EngineConfig | None = field(default=None, converter=_as_engine)
    provider: str | None = None
    base_url: str | None = None
    api_key: Secret | None = field(default=None, converter=as_secret, repr=False)
    fallbacks: tuple[str, ...] = field(default=(), converter=tuple)
    policy: ClientPolicy = field(default="ordered", validator=_one_of(get_args(ClientPolicy)))
    allow_unknown: bool = False
    hedge: HedgePolicy | None = None
    endpoint: EndpointSettings = field(
        default=Factory(lambda self: _usual_endpoint(self.engine), takes_self=True)
    )
    connect_s: float | None = 10.0
    first_byte_s: float | None = 60.0
    idle_s: float | None = 60.0
    max_connections: int = 128
    output: OutputSettings = field(factory=OutputSettings)
    proxy: str | None = field(
        default=ENVIRONMENT,
        validator=lambda _, __, proxy: check_proxy(proxy),
        repr=lambda proxy: repr(masked(proxy)),
    )
    sinks: tuple[RecordSink, ...] = field(default=(), converter=tuple, repr=False)
    credentials: Credentials = field(factory=Credentials, repr=False)
    transport: Transport | None = field(default=None, repr=False)
    clock: Clock | None = field(default=None, repr=False)

    @classmethod
    def of(cls, model: str | None, given: Mapping[str, Any]) -> Self:
        """The settings ``given`` by name; raises LLMInvalidRequestError for an unknown one."""
        known = {item.name for item in fields(cls)} - {"model"}
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise LLMInvalidRequestError(f"a client has no setting {name!r}{hint}", param=name)
        settings = cls(model=model, **given)
        if settings.engine is not None:
            for name, value in (
                ("model", model),
                *((each, given.get(each)) for each in _NO_ENGINE),
            ):
                if value is not None:
                    raise LLMInvalidRequestError(
                        f"{name} is given beside engine, which says it already; leave one of them "
                        "out",
                        param=name,
                    )
        if settings.api_key is not None and not (model or settings.provider or settings.base_url):
            raise LLMInvalidRequestError(
                "api_key does not say whose key it is: name a default model, provider or base_url "
                "with it, or leave it out and set the provider's variable",
                param="api_key",
            )
        if settings.hedge is not None and not (settings.fallbacks or settings.hedge.same_backend):
            raise LLMInvalidRequestError(
                "hedge has nobody to ask a second time: name fallbacks, or make it "
                "HedgePolicy(same_backend=True)",
                param="hedge",
            )
        return settings

    def snapshot(self) -> dict[str, object]:
        """What may be shown: everything but keys and the objects handed in for tests."""
        return {
            "model": self.model,
            "engine": None if self.engine is None else self.engine.name,
            "provider": self.provider,
            "base_url": self.base_url,
            "api_key": "given" if self.api_key is not None else None,
            "fallbacks": list(self.fallbacks),
            "policy": self.policy,
            "allow_unknown": self.allow_unknown,
            "hedge": None if self.hedge is None else asdict(self.hedge),
            "endpoint": _endpoint(self.endpoint),
            "connect_s": self.connect_s,
            "first_byte_s": self.first_byte_s,
            "idle_s": self.idle_s,
            "max_connections": self.max_connections,
            "output": asdict(self.output),
            "proxy": masked(self.proxy),
        }


def _endpoint(settings: EndpointSettings) -> dict[str, object]:
    plain: dict[str, object] = asdict(settings)
    if settings.retry is not None:
        kinds = [kind.__name__ for kind in settings.retry.kinds]
        plain["retry"] = {**asdict(settings.retry), "kinds": kinds}
    return plain
