"""What was said of endpoints while the server ran: it lies over what the configuration says.

It is kept until the process ends. The file may be read again under it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from attrs import evolve, field, frozen

from headrace.contracts.convert import from_plain, to_plain
from headrace.contracts.errors import LLMEndpointNotFoundError, LLMInvalidRequestError
from headrace.gateway.backend_config import BackendConfig
from headrace.gateway.config import Config, check_names
from headrace.gateway.share import check_shares
from headrace.net.proxy import masked
from headrace.net.transport import as_http, parse_url
from headrace.stores.secret import redact

PlainOverlay: TypeAlias = list[tuple[str, dict[str, Any] | None, bool]]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KEYS = ("api_key", "api_keys", "api_key_env", "api_key_envs")
_PLACES = ("base_url", "proxy")


@frozen
class Said:
    """What is said of one endpoint in the place of the configuration; ``None``: it is removed.

    ``moved``: its address was given at run time, so nothing of this server's own goes there.
    """

    backend: BackendConfig | None
    moved: bool = False


_NOTHING = Said(None)


@frozen
class Overlay:
    """What is said of endpoints, by their names."""

    said: Mapping[str, Said] = field(factory=dict)

    def over(self, config: Config) -> Config:
        """``config`` with it; raises LLMInvalidRequestError where the two do not agree."""
        if not self.said:
            return config
        left = dict(self.said)
        backends = [left.pop(each.name, Said(each)).backend for each in config.backends]
        backends += [each.backend for each in left.values()]
        laid = evolve(config, backends=tuple(each for each in backends if each is not None))
        check_names(laid)
        check_shares(laid)
        return laid

    def moved(self, name: str) -> bool:
        """Whether the address of that endpoint was given at run time."""
        return self.said.get(name, _NOTHING).moved

    def with_one(self, name: str, said: Said, config: Config) -> Overlay:
        """It, with another word on ``name``; ``config`` is what it lies over."""
        all_of_it = {**self.said, name: said}
        if said.backend is None and all(each.name != name for each in config.backends):
            del all_of_it[name]
        return Overlay(all_of_it)

    def to_plain(self) -> PlainOverlay:
        """For another process of this server: keys stand in it."""
        return [
            (name, None if said.backend is None else _plain(said.backend), said.moved)
            for name, said in self.said.items()
        ]


def overlay_of(plain: PlainOverlay) -> Overlay:
    """What ``to_plain`` was given for."""
    return Overlay(
        {
            name: Said(None if one is None else from_plain(one, BackendConfig), moved)
            for name, one, moved in plain
        }
    )


NO_OVERLAY = Overlay()
Change: TypeAlias = Callable[[Overlay, Config], Overlay]
"""The overlay that is to come, from the one there is and the configuration beneath it."""


class Changes(Protocol):
    """Has this server, with all of its processes, stand on another overlay."""

    @property
    def overlay(self) -> Overlay:
        """The one that it stands on."""

    @property
    def base(self) -> Config:
        """The configuration beneath it, as it was read."""

    async def change(self, change: Change) -> None:
        """Stand on what ``change`` makes; raises the LLMError with which that cannot be, and then
        nothing is changed."""


def created(body: Mapping[str, Any]) -> Change:
    """A new endpoint as ``body`` describes it."""

    def change(overlay: Overlay, config: Config) -> Overlay:
        said = _said(dict(body), config, moved=_moves(body))
        assert said.backend is not None
        name = said.backend.name
        if not _NAME.fullmatch(name):  # it stands in addresses
            raise LLMInvalidRequestError(
                f"name is {name[:200]!r}; letters, digits, '.', '_' and '-' are needed, 128 at most "
                "and no sign first",
                param="name",
            )
        if any(each.name == name for each in overlay.over(config).backends):
            raise LLMInvalidRequestError(
                f"there is an endpoint {name!r} already; change it with PATCH, or choose another name",
                status=409,
                param="name",
                code="endpoint_exists",
            )
        return overlay.with_one(name, said, config)

    return change


def changed(name: str, body: Mapping[str, Any]) -> Change:
    """The endpoint ``name`` with the fields of ``body``; a field that is null is as if left out."""

    def change(overlay: Overlay, config: Config) -> Overlay:
        before = the_one(overlay.over(config), name)
        if body.get("name", name) != name:
            raise LLMInvalidRequestError(
                f"name cannot be changed; delete {name!r} and make another", param="name"
            )
        plain, gives_keys = {**_plain(before), **body}, any(key in body for key in _KEYS)
        if gives_keys:
            plain.update({key: body.get(key) for key in _KEYS})
        elif _is_elsewhere(plain, before, body) and any(plain[key] for key in _KEYS):
            # Keys are given for an address; those that were given for another are not shown there.
            raise LLMInvalidRequestError(
                "the address is another one, and this endpoint's keys are not shown there: give "
                "api_key or api_keys as well, or api_key: null for none",
                param="api_key",
            )
        plain = {key: value for key, value in plain.items() if value is not None}
        said = _said(plain, config, moved=overlay.moved(name) or _moves(body))
        return overlay.with_one(name, said, config)

    return change


def removed(name: str) -> Change:
    """The endpoint ``name`` no more."""

    def change(overlay: Overlay, config: Config) -> Overlay:
        the_one(overlay.over(config), name)
        return overlay.with_one(name, Said(None), config)

    return change


def the_one(config: Config, name: str) -> BackendConfig:
    """The backend of that name; raises LLMEndpointNotFoundError, or where there are several."""
    found = [each for each in config.backends if each.name == name]
    if len(found) > 1:
        raise LLMInvalidRequestError(
            f"{len(found)} backends are named {name!r}; give them names of their own first",
            status=409,
            param="name",
            code="ambiguous",
        )
    if found:
        return found[0]
    known = [each.name for each in config.backends]
    raise not_found(name, known)


def not_found(name: str, known: list[str]) -> LLMEndpointNotFoundError:
    """What is said where there is no endpoint ``name`` among those ``known``."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    there = f"known: {', '.join(known)}" if known else "there is none"
    return LLMEndpointNotFoundError(
        f"there is no endpoint {name[:200]!r}; {hint}{there}", param="name"
    )


def shown(backend: BackendConfig) -> dict[str, Any]:
    """All of ``backend`` that may be shown: of keys only how many there are."""
    plain = _plain(backend)
    count = len(backend.api_keys) + len(backend.api_key_envs)
    keys = count or int(backend.api_key is not None or backend.api_key_env is not None)
    del plain["api_key"], plain["api_keys"]
    plain["proxy"] = masked(backend.proxy)
    for name in ("base_url", "metrics_url"):
        plain[name] = None if plain[name] is None else redact(plain[name])
    return {**plain, "keys": keys}


def _plain(backend: BackendConfig) -> dict[str, Any]:
    plain = to_plain(backend)
    assert isinstance(plain, dict)
    return plain


def _moves(body: Mapping[str, Any]) -> bool:
    return any(body.get(name) is not None for name in _PLACES)


def _is_elsewhere(plain: Mapping[str, Any], before: BackendConfig, body: Mapping[str, Any]) -> bool:
    """Whether ``plain``, which ``body`` made of ``before``, has another address than that."""
    # Where none is given, the provider's own is meant.
    usual = plain.get("provider") if plain.get("base_url") is None else None
    usual_before = before.provider if before.base_url is None else None
    return _moves(body) or usual != usual_before


def _said(plain: dict[str, Any], config: Config, *, moved: bool) -> Said:
    """What ``plain`` says, looked through.

    Whoever may change endpoints need not know this server's own keys, and is not to learn them. So
    what is in its environment, or in a provider's headers, goes only to addresses that its
    configuration or the provider's own row names.
    """
    backend = from_plain(plain, BackendConfig)
    if not moved:
        return Said(backend)
    if plain.get("base_url") and parse_url(as_http(plain["base_url"])).unix_path is not None:
        # What listens there often trusts whoever can reach it.
        raise LLMInvalidRequestError(
            f"base_url is {plain['base_url']!r}; unix sockets are for the configuration to name",
            param="base_url",
        )
    for name in ("api_key_env", "api_key_envs"):
        if getattr(backend, name):
            raise LLMInvalidRequestError(
                f"{name} names keys of this server's environment, which are not shown to an address "
                "that was given at run time; give api_key or api_keys",
                param=name,
            )
    if any(row.name == backend.provider for row in config.providers):
        raise LLMInvalidRequestError(
            f"provider {backend.provider!r} is the configuration's own, and its headers are not shown "
            "to an address that was given at run time; leave base_url and proxy out, or write the "
            "endpoint into the configuration",
            param="provider",
        )
    return Said(evolve(backend, key_from_environment=False), moved=True)
