"""``headrace profile --compare A B``: two saved profiles side by side."""

from __future__ import annotations

from pathlib import Path

import typer

from headrace.cli.output import console, print_json


def compare_profiles(a: Path, b: Path, *, as_json: bool = False, markdown: bool = False) -> None:
    """Print B against A, each a ``report.json`` or the folder that holds one."""
    from headrace.bench.profile.compare import compare
    from headrace.bench.profile.report.saved import read_file
    from headrace.bench.report.comparison import comparison_markdown, show_comparison

    found = compare(read_file(a), read_file(b))
    if as_json:
        print_json(found)
    elif markdown:
        typer.echo(comparison_markdown(found), nl=False)
    else:
        show_comparison(found, console())
