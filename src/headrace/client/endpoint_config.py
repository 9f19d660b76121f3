"""What is said of an endpoint that is made at run time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Self

from attrs import evolve, field, fields, frozen

from headrace.backends.providers import provider, providers, split_model
from headrace.backends.row import Provider
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.transport import as_http, parse_url
from headrace.stores.secret import Secret
from headrace.traffic.breaker import BreakerPolicy
from headrace.traffic.endpoint import EndpointSettings
from headrace.traffic.retry import RetryPolicy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _keys(given: Any) -> tuple[Secret, ...]:
    if given is None:
        return ()
    several = (given,) if isinstance(given, (str, Secret)) else tuple(given)
    return tuple(
        key if isinstance(key, Secret) else Secret(key, source=f"api_keys[{i}]")
        for i, key in enumerate(several)
    )


def _names(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _between(least: float, most: float, *, whole: bool = False) -> Any:
    def check(_: object, attribute: Any, value: Any) -> None:
        if value is None and attribute.default is None:
            return
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or (whole and value != int(value)) or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            raise LLMInvalidRequestError(
                f"{attribute.name} is {value!r}; {kind} from {least:g} to {most:g} is needed",
                param=attribute.name,
            )

    return check


def _plain(_: object, __: object, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise LLMInvalidRequestError(
            f"name is {name!r}; letters, digits, '.', '_' and '-' are needed, 128 at most and no "
            "sign first",
            param="name",
        )
    if name in providers():
        raise LLMInvalidRequestError(
            f"name is {name!r}, which is a provider's; choose another", param="name"
        )


def _address(_: object, attribute: Any, value: Any) -> None:
    if value is None:
        return
    try:
        if not isinstance(value, str):
            raise LLMInvalidRequestError(f"a {type(value).__name__}, and text is needed")
        parse_url(as_http(value))
    except LLMInvalidRequestError as wrong:
        raise LLMInvalidRequestError(
            f"{attribute.name} is {wrong}", param=attribute.name
        ) from wrong


_MILLION = 1e6
_DAY_S = 86_400


@frozen(kw_only=True)
class EndpointConfig:
    """An endpoint by name: whom it asks, with which keys, and how it is treated.

    ``model`` may name the provider before it (``openai/gpt-5-mini``). Each of ``api_keys`` has a
    queue, limits and a back-off of its own: ``max_concurrent_requests``, ``queue_size`` and the
    limits a minute are of each. ``api_key_env`` are the variables that hold them; where neither is
    given the provider's own variables are looked at. A retry waits ``initial_retry_delay``, then
    ``backoff_factor`` times as long as the one before, at most ``max_retry_delay`` seconds.
    """

    name: str = field(validator=_plain)
    provider: str = "openai-compatible"
    model: str | None = None
    base_url: str | None = field(default=None, validator=_address)
    api_keys: tuple[Secret, ...] = field(default=(), converter=_keys)
    api_key_env: tuple[str, ...] = field(default=(), converter=_names)
    max_concurrent_requests: int = field(default=5, validator=_between(1, _MILLION, whole=True))
    queue_size: int = field(default=100, validator=_between(0, _MILLION, whole=True))
    queue_timeout_s: float = field(default=300.0, validator=_between(0.001, _DAY_S))
    requests_per_minute: float | None = field(default=None, validator=_between(1, 1e9))
    tokens_per_minute: float | None = field(default=None, validator=_between(1, 1e12))
    max_retries: int = field(default=5, validator=_between(0, 100, whole=True))
    initial_retry_delay: float = field(default=1.0, validator=_between(0, 3600))
    backoff_factor: float = field(default=2.0, validator=_between(1, 100))
    max_retry_delay: float = field(default=16.0, validator=_between(0, 3600))
    retry_jitter: float = field(default=0.5, validator=_between(0, 1))
    breaker_failures: int = field(default=5, validator=_between(0, _MILLION, whole=True))
    breaker_open_s: float = field(default=30.0, validator=_between(0.001, _DAY_S))
    timeout_s: float | None = field(default=60.0, validator=_between(0.001, _DAY_S))

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any]) -> Self:
        """The one that is ``given`` by fields; raises LLMInvalidRequestError that names the field.

        ``api_key`` is one key, or ``None`` for none; ``model`` may bring its provider along.
        """
        return cls(name=name, **_said(given, None))

    def changed(self, given: Mapping[str, Any]) -> Self:
        """This one with the fields that are ``given``."""
        said = _said(given, self)
        if "name" in said:
            raise LLMInvalidRequestError(
                f"name cannot be changed; remove {self.name!r} and create another", param="name"
            )
        return evolve(self, **said)

    def row(self) -> Provider:
        """Its provider's row; raises LLMInvalidRequestError for an unknown provider."""
        return provider(self.provider)

    def settings(self) -> EndpointSettings:
        """How each of its keys is treated."""
        return EndpointSettings(
            max_running=self.max_concurrent_requests,
            max_waiting=self.queue_size,
            queue_s=self.queue_timeout_s,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            retry=RetryPolicy(
                retries=self.max_retries,
                first_delay_s=self.initial_retry_delay,
                factor=self.backoff_factor,
                max_delay_s=self.max_retry_delay,
                jitter=self.retry_jitter,
            )
            if self.max_retries
            else None,
            breaker=BreakerPolicy(failures=self.breaker_failures, open_s=self.breaker_open_s)
            if self.breaker_failures
            else None,
            total_s=self.timeout_s,
        )

    def shown(self) -> dict[str, object]:
        """All of it that may be shown: keys are counted."""
        told = {each.name: getattr(self, each.name) for each in fields(type(self))}
        return {**told, "api_keys": len(self.api_keys), "api_key_env": list(self.api_key_env)}


def _said(given: Mapping[str, Any], before: EndpointConfig | None) -> dict[str, Any]:
    said = dict(given)
    if "api_keys" in said and said.get("api_key") is None:
        said.pop("api_key", None)
    if "api_key" in said:
        if "api_keys" in said:
            raise LLMInvalidRequestError(
                "api_key and api_keys are both given; leave one of them out", param="api_key"
            )
        said["api_keys"] = said.pop("api_key")
    known = {each.name for each in fields(EndpointConfig)}
    for name in said:
        if name not in known or (name == "name" and before is None):
            near = get_close_matches(name, known - {"name"}, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise LLMInvalidRequestError(f"an endpoint has no {name!r}{hint}", param=name)
    model = said.get("model")
    # A server's own names may hold slashes; where nobody says whose model it is, it says so itself.
    is_told = before is not None or "provider" in said or "base_url" in said
    if model is not None and not is_told:
        row, said["model"] = split_model(model)
        said["provider"] = row.name
    return said
