"""``headrace doctor``: what is installed and found, which backends answer, what to do about the rest."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import frozen

from headrace.cli.output import console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.cli.checkup import BackendFinding
    from headrace.gateway.config import Config

# Those of the packages we need that compute answers.
_ENGINES = frozenset({"xllamacpp"})
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*(?:;.*extra\s*==\s*['\"]([^'\"]+)['\"])?")


@frozen(kw_only=True)
class Installed:
    """Versions; ``None`` is not installed. ``extras`` are what ``headrace[NAME]`` would install.

    ``local_engines`` are those that compute a model out of its folder, each with the line that
    installs what it lacks, or ``None``.
    """

    python: str
    platform: str
    headrace: str
    engine: dict[str, str | None]
    packages: dict[str, str | None]
    extras: dict[str, dict[str, str | None]]
    local_engines: dict[str, str | None]


@frozen(kw_only=True)
class Cache:
    """Where model files lie, how much they take, and which of the known models are there."""

    path: str
    size_bytes: int
    models: dict[str, bool]


def doctor(
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Ask this one only, and exit with 1 if it does not work. Repeatable."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="HEADRACE_CONFIG",
            help="A gateway's YAML file: look at its models, providers and backends too.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is installed, which keys are found, and which backends answer one live call.

    The models in the box are started and asked a question. A provider is asked for its list of
    models, which costs nothing, where there is a key for it, its address is local or a configuration
    names it as a backend; no other is contacted, and nothing is fetched.
    """
    import uvloop

    from headrace.cli.checkup import examine, subjects
    from headrace.cli.keys import find_keys, show_keys
    from headrace.stores.credentials import Credentials

    settings = None
    if config is not None:
        from headrace.gateway.config import load

        settings = load(config)
    credentials = Credentials()
    known = subjects(credentials, settings)
    for name in backend or ():
        _check_known(name, tuple(known))
    found = uvloop.run(examine({name: known[name] for name in backend or known}))
    installed, cache, keys = _installed(), _cache(), find_keys(credentials, _names_of(settings))
    if as_json:
        print_json({"installed": installed, "cache": cache, "keys": keys, "backends": found})
    else:
        out = console()
        _show_installed(out, installed, cache)
        out.print("\nKeys", style="bold")
        show_keys(out, keys)
        _show_backends(out, found)
    if backend and any(each.state != "works" for each in found):
        raise typer.Exit(1)


def _names_of(settings: Config | None) -> dict[str, tuple[str, ...]]:
    """Whose keys the configuration speaks of, and by which names."""
    if settings is None:
        return {}
    of_rows = {row.name: row.key_env for row in settings.providers if row.key_env}
    return of_rows | {
        f"backend {each.name}": (each.api_key_env,)
        for each in settings.backends
        if each.api_key_env
    }


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

    from headrace.backends.local.folders.rows import FOLDER_ENGINES

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
        local_engines={
            name: None if row.is_installed() else f"pip install 'headrace[{row.extra}]'"
            for name, row in FOLDER_ENGINES.items()
        },
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
    size_bytes = 0
    for path in store.cache.rglob("*"):
        with suppress(OSError):  # another process may be making it, or have renamed it by now
            size_bytes += path.stat().st_size if path.is_file() else 0
    return Cache(
        path=str(store.cache),
        size_bytes=size_bytes,
        models={name: store.is_here(name) for name in PRESETS},
    )


def _show_installed(out: Console, installed: Installed, cache: Cache) -> None:
    engine = ", ".join(f"{name} {number}" for name, number in installed.engine.items())
    out.print("Installed", style="bold")
    out.print(f"  headrace {installed.headrace}, Python {installed.python}")
    out.print(f"  {installed.platform}")
    out.print(f"  engine: {engine}")
    for extra, packages in installed.extras.items():
        have = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
        said = have or f"not installed (pip install 'headrace[{extra}]')"
        out.print(f"  extra {extra}: {said}")
    for name, remedy in installed.local_engines.items():
        said = "installed" if remedy is None else f"not installed ({remedy})"
        out.print(f"  models out of folders by {name}: {said}")
    out.print(f"  models: {cache.path}, {cache.size_bytes / 1e6:.0f} MB")
    for name, here in cache.models.items():
        out.print(f"    {name}: {'here' if here else 'not fetched yet'}")


def _show_backends(out: Console, found: tuple[BackendFinding, ...]) -> None:
    colours = {"works": "green", "fails": "red", "not there": "dim", "not asked": "dim"}
    out.print("\nBackends", style="bold")
    for each in found:
        took = "" if each.took_ms is None else f", {each.took_ms} ms"
        where = "" if each.address is None else f" at {each.address}"
        head = f"  {each.name} ({each.implementation_type}{where}{took}): "
        out.print(head, end="")
        out.print(each.state, style=colours[each.state], end="")
        out.print(f"; {each.message}")
        if each.remedy is not None:
            out.print(f"    -> {each.remedy}")
