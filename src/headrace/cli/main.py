"""The ``headrace`` command: one thin file a subcommand, composing the rooms."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module

import typer

from headrace.contracts.errors import LLMError

COMMANDS = (
    "serve",
    "serve_functions",
    "chat",
    "compare",
    "models",
    "model",
    "doctor",
    "load",
    "mock",
    "report",
    "selftest",
    "flops",
    "profile",
    "run",
    "inspect",
    "runs",
    "batch",
    "credentials",
    "engines",
    "endpoints",
    "warmup",
)
"""Each is a function in a file of its own, or a group there, by this name."""


def app_of(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands."""
    app = typer.Typer(
        name="headrace",
        help="Call, serve, chain, load-test and profile any language model.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(options)
    for name in names:
        command = getattr(import_module(f"headrace.cli.{name}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name.replace("_", "-"))(command)
    return app


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options of every command."""


def main() -> None:
    """Run the command line; an error of ours becomes one line and exit status 1."""
    # The other commands cost a tenth of a second that a first request would wait for.
    asked = [name.replace("-", "_") for name in sys.argv[1:2]]
    try:
        app_of(asked if asked and asked[0] in COMMANDS else COMMANDS)()
    except LLMError as error:
        typer.echo(f"headrace: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
