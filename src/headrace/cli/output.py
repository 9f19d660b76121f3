"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# A pipe has no width; a name cut short is of no use to the next program.
_PIPE_COLUMNS = 160


def console() -> Console:
    """Standard output, for text in which nothing is markup: names are data."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PIPE_COLUMNS
    return Console(width=width, markup=False, emoji=False, highlight=False)


def table_of(*columns: str) -> Table:
    """A table without lines; the numbers of a column whose name ends in ``>`` stand at its right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.rstrip(">"), justify="right" if right else "left", overflow="fold")
    return table


def print_json(value: object) -> None:
    """``value``, contracts and collections of them, as indented JSON."""
    from headrace.contracts.convert import to_plain

    typer.echo(json.dumps(to_plain(value), indent=2, ensure_ascii=False))
