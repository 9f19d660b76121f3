"""The backend that an engine's entry asks for: one that we start, or one that somebody else runs."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from headrace.backends.local.folders.engine import FolderEngine
from headrace.backends.local.folders.opened import open_folder_engine
from headrace.backends.local.folders.rows import FOLDER_ENGINES, check_folder_engine
from headrace.backends.managed.adapters import known_backends
from headrace.backends.managed.engine import PATIENT, Managed
from headrace.backends.providers import provider, providers, usual_base_url
from headrace.backends.remote import Remote
from headrace.backends.row import Provider
from headrace.contracts.engines import EngineConfig, of_a_start
from headrace.contracts.errors import LLMAuthError, LLMInvalidRequestError
from headrace.net.clock import World
from headrace.net.transport import TimeLimits
from headrace.stores.credentials import Credentials
from headrace.stores.secret import Secret

Started: TypeAlias = Managed | FolderEngine
"""What runs while somebody uses it."""

Opened: TypeAlias = Started | Remote


def check_engine(config: EngineConfig) -> None:
    """Raises LLMInvalidRequestError where nobody knows its backend, or has to start it and cannot."""
    row_of_engine(config)
    if config.backend in FOLDER_ENGINES:
        check_folder_engine(config)
        return
    if config.backend in known_backends():
        return
    for name in of_a_start(config):
        raise LLMInvalidRequestError(
            f"engine {config.name!r}: {name} is given, and {config.backend} is a provider, where "
            "nothing is started; leave it out, or choose another backend",
            param=name,
        )


def row_of_engine(config: EngineConfig) -> Provider:
    """The provider's row by which it is asked."""
    if config.backend in FOLDER_ENGINES:
        return FOLDER_ENGINES[config.backend].provider
    program = known_backends().get(config.backend)
    if program is not None:
        return provider(program.provider)
    row = providers().get(config.backend)
    if row is None:
        from difflib import get_close_matches

        ours = [*known_backends(), *FOLDER_ENGINES]
        known = [*ours, *(name for name in providers() if name not in ours)]
        near = get_close_matches(config.backend, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise LLMInvalidRequestError(
            f"engine {config.name!r}: backend is {config.backend!r}, which is no program that we "
            f"start and no provider; {hint}known: {', '.join(known)}",
            param="backend",
        )
    return row


def is_started_here(config: EngineConfig) -> bool:
    """Whether we start it, and nobody else does."""
    is_ours = config.backend in known_backends() or config.backend in FOLDER_ENGINES
    return is_ours and config.endpoint is None


def key_of_engine(config: EngineConfig, credentials: Credentials) -> Secret | None:
    """Its key: its own, that of its variable, or that of its provider's.

    Raises LLMAuthError where its variable, or that which its provider needs, is not set.
    """
    if config.api_key is not None:
        return Secret(config.api_key)
    if config.api_key_env is not None:
        found = credentials.find((config.api_key_env,))
        if found is None:
            raise LLMAuthError(
                f"engine {config.name!r}: api_key_env is {config.api_key_env!r}, and no such "
                "variable is set; set it, or leave api_key_env out"
            )
        return found.secret
    row = row_of_engine(config)
    if is_started_here(config):
        return None  # what we start asks for the key that its entry has, and for no other
    if row.needs_key:
        return credentials.require(row.name, row.key_env).secret
    found = credentials.find(row.key_env)
    return None if found is None else found.secret


def open_engine(
    config: EngineConfig,
    world: World,
    *,
    key: Secret | None = None,
    state: Path | None = None,
    limits: TimeLimits | None = None,
) -> Opened:
    """The backend of ``config``, of which nothing has been started or asked yet.

    ``limits`` are for asking it, once it runs.
    """
    check_engine(config)
    if config.backend in FOLDER_ENGINES:
        return open_folder_engine(config, world)
    if config.backend in known_backends():
        return Managed(config, world, key=key, state=state, limits=limits or PATIENT)
    row = row_of_engine(config)
    base_url = config.endpoint or usual_base_url(row)
    if base_url is None:
        raise LLMInvalidRequestError(
            f"engine {config.name!r}: {config.backend} has no address of its own; say endpoint",
            param="endpoint",
        )
    return Remote(
        name=config.name,
        provider=row,
        base_url=base_url,
        world=world,
        key=key,
        model=config.model,
        limits=limits or TimeLimits(),
    )
