"""Whose keys are found, under which name and where: for the commands that tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.stores.credentials import Credentials


@frozen(kw_only=True)
class KeyFinding:
    """Whose key, the names it may have, and where one was found.

    ``key`` is the mask that stands for one, ``None`` where there is none; ``fault`` says why one
    that was found cannot be used. ``refused`` are files that are not read, and ``remedies`` mend
    them.
    """

    provider: str
    names: tuple[str, ...]
    name: str | None
    source: str | None
    key: str | None = None
    fault: str | None = None
    refused: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


def find_keys(
    credentials: Credentials, more: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[KeyFinding, ...]:
    """For every provider that may have a key, those included that have no row yet, and ``more``."""
    from headrace.backends.providers import providers
    from headrace.stores.credentials import OTHER_KEYS

    names_of = {row.name: row.key_env for row in providers().values() if row.key_env}
    return tuple(
        _finding(whose, names, credentials)
        for whose, names in {**names_of, **OTHER_KEYS, **(more or {})}.items()
    )


def _finding(whose: str, names: tuple[str, ...], credentials: Credentials) -> KeyFinding:
    from headrace.contracts.errors import LLMAuthError

    places = credentials.report(names)
    found = next((place for place in places if place.state == "found"), None)
    refused = [place for place in places if place.state == "refused"]
    key = fault = None
    if found is not None:
        try:
            used = credentials.find(names)
            key = None if used is None else str(used.secret)
        except LLMAuthError as error:
            fault = str(error)
    return KeyFinding(
        provider=whose,
        names=names,
        name=None if found is None else found.name,
        source=None if found is None else found.source,
        key=key,
        fault=fault,
        refused=tuple(place.source for place in refused),
        remedies=tuple(place.remedy for place in refused if place.remedy),
    )


def show_keys(out: Console, keys: tuple[KeyFinding, ...]) -> None:
    """A line for each that is found, one for those that are not, and what to do about files."""
    for key in keys:
        if key.source is not None:
            out.print(f"  {key.provider}: {key.name} in {key.source}", end="")
            out.print("" if key.fault is None else f": cannot be used: {key.fault}")
    missing = [key.provider for key in keys if key.source is None]
    if missing:
        out.print(f"  none for {', '.join(missing)}")
    for place in dict.fromkeys(place for key in keys for place in key.refused):
        out.print(f"  {place} is not read: it must be text that its owner alone can read")
    for remedy in dict.fromkeys(remedy for key in keys for remedy in key.remedies):
        out.print(f"    -> {remedy}")
