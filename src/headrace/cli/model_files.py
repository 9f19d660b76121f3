"""``headrace model pull``, ``list``, ``rm``, ``push``, ``head`` and ``link``: files by URI."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.output import console, print_json, table_of
from headrace.cli.progress import shown

_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_ANONYMOUS = Annotated[
    bool, typer.Option("--anonymous", help="Ask S3 without a key; public buckets allow that.")
]
_ENDPOINT = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url", help="A server that speaks S3. [default: AWS_ENDPOINT_URL_S3, else AWS]"
    ),
]


def pull(
    uris: Annotated[
        list[str],
        typer.Argument(
            metavar="URI",
            # Brackets would be markup.
            help="hf:OWNER/NAME@REVISION/PATH (main without @REVISION), s3://BUCKET/KEY, "
            "ipfs:CID/PATH, pypi:NAME==VERSION/PATH or https://HOST/PATH#sha256=HEX; #sha256=HEX "
            "may stand behind any of them.",
        ),
    ],
    again: Annotated[
        bool, typer.Option("--again", help="Fetch it although it is here: it may be newer there.")
    ] = False,
    anonymous: _ANONYMOUS = False,
    endpoint_url: _ENDPOINT = None,
    as_json: _JSON = False,
) -> None:
    """Fetch model files into the cache, where every command finds them by the same URI.

    Ctrl-C, or a connection that breaks, loses nothing: the same command goes on from there.
    """
    from headrace.cli.model_reach import reach
    from headrace.contracts.errors import LLMInvalidRequestError
    from headrace.stores.models.kept import KeptFiles
    from headrace.stores.models.pull import Pull
    from headrace.stores.models.store import default_cache
    from headrace.stores.models.uri import read_uri

    read = [read_uri(uri) for uri in uris]
    if here := next((uri for uri in read if uri.text.startswith("file:")), None):
        raise LLMInvalidRequestError(f"{here.text} is on this machine already; nothing to fetch")
    kept = KeptFiles(default_cache())
    found = []
    with shown() as progress:
        pulling = Pull(kept, reach(endpoint_url, anonymous), progress)
        for uri in read:
            found.append(pulling.get(uri, again=again))
    if as_json:
        print_json({"files": found})
        return
    out = console()
    for file in found:
        out.print(file.path, soft_wrap=True)


def list_files(
    uri: Annotated[
        str | None,
        typer.Argument(metavar="s3://BUCKET/PREFIX", help="List what is there instead."),
    ] = None,
    anonymous: _ANONYMOUS = False,
    endpoint_url: _ENDPOINT = None,
    as_json: _JSON = False,
) -> None:
    """List the model files in the cache, or the objects in a bucket."""
    from headrace.stores.models.kept import KeptFiles
    from headrace.stores.models.store import default_cache

    if uri is not None:
        from headrace.cli.model_s3 import list_objects

        list_objects(uri, endpoint_url, anonymous, as_json)
        return
    cache = default_cache()
    files = KeptFiles(cache).all()
    if as_json:
        print_json({"cache": str(cache), "files": files})
        return
    out = console()
    table = table_of("uri", "size>", "sha256", "fetched")
    for file in files:
        size = f"{file.size_bytes / 1e6:,.1f} MB"
        table.add_row(file.uri, size, file.sha256[:12], file.fetched_at[:10])
    out.print(table)
    out.print(f"\n{len(files)} of them in {cache}, beside the known models", soft_wrap=True)


def rm(
    uris: Annotated[list[str], typer.Argument(metavar="URI", help="As model list shows it.")],
    there: Annotated[
        bool,
        typer.Option("--there", help="Delete the object of an s3:// URI itself, not what is here."),
    ] = False,
    anonymous: _ANONYMOUS = False,
    endpoint_url: _ENDPOINT = None,
    as_json: _JSON = False,
) -> None:
    """Remove model files from the cache, also those of which only a part has come.

    A URI of which nothing is here makes the exit status 1, after the others were removed.
    """
    from headrace.contracts.errors import LLMInvalidRequestError
    from headrace.stores.models.kept import KeptFiles
    from headrace.stores.models.store import default_cache
    from headrace.stores.models.uri import read_uri

    read = [read_uri(uri) for uri in uris]
    if there:
        from headrace.cli.model_s3 import delete_objects

        delete_objects(read, endpoint_url, anonymous, as_json)
        return
    kept = KeptFiles(default_cache())
    removed, missing = [], []
    for uri in read:
        file, part = kept.find(uri), kept.remove_part(uri)
        if file is not None:
            kept.remove(file)
        if file is None and not part:
            missing.append(uri.text)
        else:
            removed.append({"uri": uri.text, "bytes": part + (file.size_bytes if file else 0)})
    if as_json:
        print_json({"removed": removed, "missing": missing})
    else:
        for each in removed:
            console().print(f"removed {each['uri']} ({each['bytes']:,} bytes)", soft_wrap=True)
    if missing:
        raise LLMInvalidRequestError(
            f"nothing is here of {', '.join(missing)}; see what is: headrace model list"
        )


def push(
    path: Annotated[str, typer.Argument(help="The file: a path, or the URI of one in the cache.")],
    uri: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY", help="Where to put it.")],
    endpoint_url: _ENDPOINT = None,
    as_json: _JSON = False,
) -> None:
    """Upload a model file to S3, in parts where it is large, with its hash beside it."""
    from headrace.cli.model_s3 import upload

    upload(path, uri, endpoint_url, as_json)


def head(
    uri: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY")],
    anonymous: _ANONYMOUS = False,
    endpoint_url: _ENDPOINT = None,
    as_json: _JSON = False,
) -> None:
    """Show the size, time and hash of an object in S3, without fetching it."""
    from headrace.cli.model_s3 import show_head

    show_head(uri, endpoint_url, anonymous, as_json)


def link(
    uri: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY")],
    seconds: Annotated[
        int, typer.Option(min=1, max=604_800, help="How long it lets its holder in.")
    ] = 3600,
    endpoint_url: _ENDPOINT = None,
    as_json: _JSON = False,
) -> None:
    """Print a URL by which anybody may fetch an object in S3 for a while (a presigned one)."""
    from headrace.cli.model_s3 import show_link

    show_link(uri, seconds, endpoint_url, as_json)
