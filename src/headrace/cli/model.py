"""``headrace model``: model files on this machine. What backends serve, ``headrace models`` lists."""

from __future__ import annotations

import typer

from headrace.cli.model_files import head, link, list_files, pull, push, rm
from headrace.cli.model_rewrite import export, quantize

model = typer.Typer(
    help="Model files: fetch, list, remove and upload them; rewrite one for other engines.",
    no_args_is_help=True,
)
model.command()(pull)
model.command("list")(list_files)
for _command in (rm, push, head, link, export, quantize):
    model.command()(_command)
