"""The ``headrace`` command: one thin file a subcommand, composing the rooms."""

from __future__ import annotations

import sys

import typer

from headrace.cli.chat import chat
from headrace.cli.compare import compare
from headrace.cli.credentials import credentials
from headrace.cli.doctor import doctor
from headrace.cli.flops import flops
from headrace.cli.load import load
from headrace.cli.mock import mock
from headrace.cli.models import models
from headrace.cli.profile import profile
from headrace.cli.report import report
from headrace.cli.selftest import selftest
from headrace.cli.serve import serve
from headrace.contracts.errors import LLMError

app = typer.Typer(
    name="headrace",
    help="Call, serve, chain, load-test and profile any language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(chat)
app.command()(compare)
app.command()(models)
app.command()(doctor)
app.command()(load)
app.command()(mock)
app.command()(report)
app.command()(selftest)
app.command()(flops)
app.command()(profile)
app.add_typer(credentials, name="credentials")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options of every command."""


def main() -> None:
    """Run the command line; an error of ours becomes one line and exit status 1."""
    try:
        app()
    except LLMError as error:
        typer.echo(f"headrace: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
