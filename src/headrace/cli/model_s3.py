"""What the ``headrace model`` commands do in S3 itself: list, delete, upload, look, link."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import typer

from headrace.cli.model_reach import reach
from headrace.cli.output import console, print_json, table_of
from headrace.cli.progress import shown

if TYPE_CHECKING:
    from headrace.stores.models.uri import ModelUri, S3Object
    from headrace.stores.s3.bucket import Bucket, ObjectHead

T = TypeVar("T")


def list_objects(uri: str, endpoint_url: str | None, anonymous: bool, as_json: bool) -> None:
    """What lies in a bucket below a prefix."""
    from headrace.contracts.errors import LLMInvalidRequestError
    from headrace.stores.models.uri import checked_bucket

    scheme, _, rest = uri.partition("://")
    if scheme != "s3":
        raise LLMInvalidRequestError(f"cannot list {uri!r}; expected s3://BUCKET/[PREFIX]")
    name, _, prefix = rest.partition("/")

    async def listed(bucket: Bucket) -> list[ObjectHead]:
        return [found async for found in bucket.list(prefix)]

    objects = _in_bucket(checked_bucket(name), endpoint_url, anonymous, listed)
    if as_json:
        print_json({"objects": objects})
        return
    table = table_of("uri", "size>", "modified")
    for found in objects:
        size = f"{found.size_bytes / 1e6:,.1f} MB"
        table.add_row(f"s3://{found.bucket}/{found.key}", size, found.modified or "-")
    console().print(table)


def delete_objects(
    uris: Sequence[ModelUri], endpoint_url: str | None, anonymous: bool, as_json: bool
) -> None:
    """Delete the objects of these URIs from their buckets."""
    places = [_object(uri) for uri in uris]
    for place in places:

        async def deleted(bucket: Bucket, key: str = place.key) -> None:
            # S3 says the same of a key that was never there; whoever mistyped it should know.
            await bucket.head(key)
            await bucket.delete(key)

        _in_bucket(place.bucket, endpoint_url, anonymous, deleted)
    gone = [f"s3://{place.bucket}/{place.key}" for place in places]
    if as_json:
        print_json({"deleted": gone})
        return
    for uri in gone:
        console().print(f"deleted {uri}", soft_wrap=True)


def upload(path: str, uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """Put a file into a bucket."""
    from headrace.stores.models import ModelStore
    from headrace.stores.models.uri import read_uri

    place = _object(read_uri(uri))
    with shown() as progress:
        file = ModelStore().locate(path, progress)
        what = f"Uploading {file.name}"

        async def put(bucket: Bucket) -> ObjectHead:
            return await bucket.put(
                place.key, file, lambda done, total: progress(what, done, total)
            )

        head = _in_bucket(place.bucket, endpoint_url, False, put)
    if as_json:
        print_json(head)
        return
    typer.echo(f"s3://{head.bucket}/{head.key}#sha256={head.sha256}")


def show_head(uri: str, endpoint_url: str | None, anonymous: bool, as_json: bool) -> None:
    """What is known of an object."""
    from headrace.stores.models.uri import read_uri

    place = _object(read_uri(uri))

    async def asked(bucket: Bucket) -> ObjectHead:
        return await bucket.head(place.key)

    head = _in_bucket(place.bucket, endpoint_url, anonymous, asked)
    if as_json:
        print_json(head)
        return
    out = console()
    out.print(f"s3://{head.bucket}/{head.key}", soft_wrap=True)
    out.print(f"  size:     {head.size_bytes:,} bytes")
    out.print(f"  modified: {head.modified or '-'}")
    out.print(f"  sha256:   {head.sha256 or 'not told'}")


def show_link(uri: str, seconds: int, endpoint_url: str | None, as_json: bool) -> None:
    """A URL that lets its holder fetch an object."""
    from headrace.stores.models.uri import read_uri

    place = _object(read_uri(uri))

    async def made(bucket: Bucket) -> str:
        return bucket.link(place.key, seconds)

    url = _in_bucket(place.bucket, endpoint_url, False, made)
    if as_json:
        print_json({"url": url, "seconds": seconds})
        return
    typer.echo(url)


def _object(uri: ModelUri) -> S3Object:
    from headrace.contracts.errors import LLMInvalidRequestError
    from headrace.stores.models.uri import S3Object

    if not isinstance(uri.place, S3Object):
        raise LLMInvalidRequestError(f"{uri.text!r} is not in S3; expected s3://BUCKET/KEY")
    return uri.place


def _in_bucket(
    name: str, endpoint_url: str | None, anonymous: bool, do: Callable[[Bucket], Awaitable[T]]
) -> T:
    from headrace.net.clock import SystemClock
    from headrace.stores.models.reach import bucket_of, reaching

    found = reach(endpoint_url, anonymous)

    async def run() -> T:
        async with reaching(found) as web:
            return await do(bucket_of(found, web, name, SystemClock()))

    return asyncio.run(run())
