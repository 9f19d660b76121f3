"""``headrace model``: model files on this machine. What backends serve, ``headrace models`` lists."""

from __future__ import annotations

import typer

from headrace.cli.model_rewrite import export, quantize

model = typer.Typer(
    help="Model files on this machine: rewrite one for other engines, or smaller.",
    no_args_is_help=True,
)
for _command in (export, quantize):
    model.command()(_command)
