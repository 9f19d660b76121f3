"""``headrace inspect``: a chain's graph, with types, engines and what these can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from headrace.contracts.errors import LLMInvalidRequestError


def inspect(
    chain: Annotated[str, typer.Argument(help="A .yaml file, or package.module:name in Python.")],
    format: Annotated[
        Literal["tree", "mermaid", "svg", "json"], typer.Option(help="How it is drawn.")
    ] = "tree",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file for it; standard output else.")
    ] = None,
) -> None:
    """Show a chain: what each node takes and gives, who is asked, and in which way.

    Says of each step how its answer is held to a schema there, and which of its settings the engine
    cannot carry out. No engine has to run, and nobody is asked.
    """
    from headrace.chains.drawing.mermaid import mermaid_of
    from headrace.chains.drawing.outline import outline_of, plain_outline
    from headrace.chains.drawing.svg import svg_of
    from headrace.chains.drawing.tree import tree_of
    from headrace.chains.load import load_chain

    outline = outline_of(*load_chain(chain))
    if format == "json":
        drawn = json.dumps(plain_outline(outline), indent=2, ensure_ascii=False) + "\n"
    else:
        drawn = {"tree": tree_of, "mermaid": mermaid_of, "svg": svg_of}[format](outline)
    if output is None:
        typer.echo(drawn, nl=False)
        return
    try:
        output.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise LLMInvalidRequestError(
            f"output is {str(output)!r}, which cannot be written: {error.strerror}", param="output"
        ) from error
