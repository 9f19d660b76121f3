"""``headrace credentials``: a file for keys, and which keys are found where. No key is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import console, print_json, table_of

credentials = typer.Typer(
    help="Write a file for keys, or list which keys are found; none is ever shown.",
    no_args_is_help=True,
)


@credentials.command()
def template(
    path: Annotated[
        Path | None, typer.Argument(help="Where. [default: ~/.ipfs_api_credentials]")
    ] = None,
) -> None:
    """Write a credentials file with every name that is known and no key, for its owner only.

    A file that is there already is left as it is, and the exit status is 1.
    """
    from headrace.contracts.errors import LLMInvalidRequestError
    from headrace.stores.credentials import write_template

    try:
        written = write_template(path)
    except FileExistsError as error:
        raise LLMInvalidRequestError(
            f"{error.filename} is there already and is left as it is; remove it, or name another path",
            param="path",
        ) from error
    except OSError as error:
        raise LLMInvalidRequestError(
            f"{error.filename or path} cannot be written: {error.strerror}", param="path"
        ) from error
    out = console()
    out.print(f"{written} is written, for you alone to read (mode 0600)")
    out.print("  -> put your keys into it; headrace credentials list says which are found")


@credentials.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List which keys are found, under which name and where, best place first.

    Nobody is asked whether a key works: headrace doctor does that.
    """
    from headrace.cli.keys import find_keys
    from headrace.stores.credentials import Credentials

    held = Credentials()
    keys = find_keys(held)
    places = held.report(())
    if as_json:
        print_json({"places": [place.source for place in places], "keys": keys})
        return
    table = table_of("provider", "key", "name", "found in")
    for key in keys:
        state = key.key or ("cannot be used" if key.fault else "-")
        names = key.name or " or ".join(key.names)
        table.add_row(key.provider, state, names, key.source or "-")
    out = console()
    out.print(table)
    out.print("\nLooked in, the first that has one counts:")
    for place in places:
        note = {"absent": ": not there", "refused": ": not read"}.get(place.state, "")
        out.print(f"  {place.source}{note}")
        if place.state == "refused":
            remedy = place.remedy or "make it text that its owner alone can read"
            out.print(f"    -> {remedy}")
    for fault in dict.fromkeys(key.fault for key in keys if key.fault):
        out.print(f"  {fault}")
