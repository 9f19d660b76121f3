"""``headrace doctor``: what is installed and found, which backends answer, what to do about the rest."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import frozen

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.cli.checkup import BackendFinding
    from headrace.stores.credentials import Credentials

# Those of the packages we need that compute answers.
_ENGINES = frozenset({"xllamacpp"})
# A pipe has no width, and an instruction that is broken up is hard to copy.
_PIPE_COLUMNS = 160
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*(?:;.*extra\s*==\s*['\"]([^'\"]+)['\"])?")


@frozen(kw_only=True)
class Installed:
    """Versions; ``None`` is not installed. ``extras`` are what ``headrace[NAME]`` would install."""

    python: str
    platform: str
    headrace: str
    engine: dict[str, str | None]
    packages: dict[str, str | None]
    extras: dict[str, dict[str, str | None]]


@frozen(kw_only=True)
class Cache:
    """Where model files lie, how much they take, and which of the known models are there."""

    path: str
    size_bytes: int
    models: dict[str, bool]


@frozen(kw_only=True)
class KeyFinding:
    """Whose key, the names it may have, and where one was found; ``remedies`` mend refused files."""

    provider: str
    names: tuple[str, ...]
    name: str | None
    source: str | None
    refused: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


def doctor(
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Ask this one only, and exit with 1 if it does not work. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is installed, which keys are found, and which backends answer one live call.

    The models in the box are started and asked a question. A provider is asked for its list of
    models, which costs nothing, where there is a key for it or its address is local; no other is
    contacted, and nothing is fetched.
    """
    import uvloop

    from headrace.cli.checkup import backend_names, examine
    from headrace.stores.credentials import Credentials

    names = backend_names()
    for name in backend or ():
        _check_known(name, names)
    credentials = Credentials()
    found = uvloop.run(examine(tuple(dict.fromkeys(backend or names)), credentials))
    installed, cache, keys = _installed(), _cache(), _keys(credentials)
    if as_json:
        from headrace.contracts.convert import to_plain

        report = {"installed": installed, "cache": cache, "keys": keys, "backends": found}
        typer.echo(json.dumps(to_plain(report), indent=2, ensure_ascii=False))
    else:
        console = _console()
        _show_installed(console, installed, cache)
        _show_keys(console, keys)
        _show_backends(console, found)
    if backend and any(each.state != "works" for each in found):
        raise typer.Exit(1)


def _check_known(name: str, names: tuple[str, ...]) -> None:
    from headrace.contracts.errors import LLMInvalidRequestError

    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise LLMInvalidRequestError(
            f"unknown backend {name!r}; {hint}known: {', '.join(names)}", param="backend"
        )


def _installed() -> Installed:
    from importlib.metadata import requires, version

    engine, packages = {}, {}
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in requires("headrace") or ():
        matched = _REQUIREMENT.match(requirement)
        assert matched
        name, extra = matched.groups()
        if extra is not None:
            extras.setdefault(extra, {})[name] = _version(name)
        elif name in _ENGINES:
            engine[name] = _version(name)
        else:
            packages[name] = _version(name)
    return Installed(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        headrace=version("headrace"),
        engine=engine,
        packages=packages,
        extras=extras,
    )


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cache() -> Cache:
    from headrace.stores.models import PRESETS, ModelStore

    store = ModelStore()
    files = (path for path in store.cache.rglob("*") if path.is_file())
    return Cache(
        path=str(store.cache),
        size_bytes=sum(path.stat().st_size for path in files),
        models={name: store.is_here(name) for name in PRESETS},
    )


def _keys(credentials: Credentials) -> tuple[KeyFinding, ...]:
    """For every provider that may have a key, those included that have no row yet."""
    from headrace.backends.providers import providers
    from headrace.stores.credentials import OTHER_KEYS

    names_of = {row.name: row.key_env for row in providers().values() if row.key_env}
    findings = []
    for whose, names in {**names_of, **OTHER_KEYS}.items():
        places = credentials.report(names)
        found = next((place for place in places if place.state == "found"), None)
        refused = [place for place in places if place.state == "refused"]
        findings.append(
            KeyFinding(
                provider=whose,
                names=names,
                name=None if found is None else found.name,
                source=None if found is None else found.source,
                refused=tuple(place.source for place in refused),
                remedies=tuple(place.remedy for place in refused if place.remedy),
            )
        )
    return tuple(findings)


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PIPE_COLUMNS
    return Console(width=width, markup=False, emoji=False, highlight=False)


def _show_installed(console: Console, installed: Installed, cache: Cache) -> None:
    engine = ", ".join(f"{name} {number}" for name, number in installed.engine.items())
    console.print("Installed", style="bold")
    console.print(f"  headrace {installed.headrace}, Python {installed.python}")
    console.print(f"  {installed.platform}")
    console.print(f"  engine: {engine}")
    for extra, packages in installed.extras.items():
        have = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
        said = have or f"not installed (pip install 'headrace[{extra}]')"
        console.print(f"  extra {extra}: {said}")
    console.print(f"  models: {cache.path}, {cache.size_bytes / 1e6:.0f} MB")
    for name, here in cache.models.items():
        console.print(f"    {name}: {'here' if here else 'not fetched yet'}")


def _show_keys(console: Console, keys: tuple[KeyFinding, ...]) -> None:
    console.print("\nKeys", style="bold")
    for key in keys:
        if key.source is not None:
            console.print(f"  {key.provider}: {key.name} in {key.source}")
    missing = [key.provider for key in keys if key.source is None]
    if missing:
        console.print(f"  none for {', '.join(missing)}")
    for place in dict.fromkeys(place for key in keys for place in key.refused):
        console.print(f"  {place} is not read: it must be text that its owner alone can read")
    for remedy in dict.fromkeys(remedy for key in keys for remedy in key.remedies):
        console.print(f"    -> {remedy}")


def _show_backends(console: Console, found: tuple[BackendFinding, ...]) -> None:
    colours = {"works": "green", "fails": "red", "not there": "dim", "not asked": "dim"}
    console.print("\nBackends", style="bold")
    for each in found:
        took = "" if each.took_ms is None else f", {each.took_ms} ms"
        where = "" if each.address is None else f" at {each.address}"
        head = f"  {each.name} ({each.implementation_type}{where}{took}): "
        console.print(head, end="")
        console.print(each.state, style=colours[each.state], end="")
        console.print(f"; {each.message}")
        if each.remedy is not None:
            console.print(f"    -> {each.remedy}")
