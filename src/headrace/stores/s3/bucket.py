"""What can be done with the objects of a bucket; each is one signed request, or one a part."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from attrs import evolve, field, frozen

from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
)
from headrace.net.clock import Clock, SystemClock
from headrace.net.transport import Headers, HttpReply, HttpRequest, Url
from headrace.stores.s3.answers import error_of, read_listing, read_xml, xml_text
from headrace.stores.s3.settings import S3Keys, S3Settings
from headrace.stores.s3.signing import escaped_path, query_text, signed_headers, signed_query
from headrace.stores.web import Web, patiently

OUR_HASH = "x-amz-meta-sha256"
"""Where an object that we put has the hash of all of it; S3's own are of its parts."""

# S3's own bounds: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_SMALLEST_PART = 5 << 20
_USUAL_PART = 16 << 20
_MOST_PARTS = 10_000
_LONGEST_LINK_S = 7 * 24 * 3600

_AT_ONCE = 3
_TRIES = 4
_FIRST_WAIT_S = 1.0
_MOST_ANSWER = 16 << 20
_EMPTY = hashlib.sha256(b"").hexdigest()


@frozen(kw_only=True)
class ObjectHead:
    """What is known of an object without fetching it; ``sha256`` where we put it there."""

    bucket: str
    key: str
    size_bytes: int
    etag: str | None = None
    modified: str | None = None
    sha256: str | None = None


@frozen
class _Asked:
    """A request about ``key``, as it is before it is signed."""

    method: str
    key: str
    query: dict[str, str] = field(factory=dict, kw_only=True)
    headers: Headers = field(default=(), kw_only=True)
    body: bytes = field(default=b"", kw_only=True)


@frozen(kw_only=True)
class Bucket:
    """A bucket, as ``keys`` may use it; without keys nothing is signed."""

    name: str
    settings: S3Settings
    keys: S3Keys | None
    web: Web
    clock: Clock = field(factory=SystemClock)

    @property
    def region(self) -> str:
        """A server of one's own mostly does not care which; AWS does, and asks for the right one."""
        if self.settings.region is not None:
            return self.settings.region
        if self.settings.endpoint is not None:
            return "us-east-1"
        raise LLMInvalidRequestError(
            f"s3://{self.name}: which region? Name it by AWS_REGION (or AWS_ENDPOINT_URL_S3, if "
            "it is another server's)",
            param="region",
        )

    # Reading.

    async def open(self, key: str, headers: Headers = ()) -> HttpReply:
        """The object, or the bytes of it that ``headers`` ask for, whose body is still coming.

        Answered with 200, 206 or 416; all else is an LLMError.
        """
        reply = await self._send(_Asked("GET", key, headers=headers))
        if reply.status not in (200, 206, 416):
            raise await self._refused(reply, key)
        return reply

    async def head(self, key: str) -> ObjectHead:
        """What is known of the object; LLMModelNotFoundError where there is none."""
        reply = await self._send(_Asked("HEAD", key))
        await reply.aclose()
        if reply.status != 200:
            raise error_of(reply, b"", f"s3://{self.name}/{key}")
        length = reply.headers.get("content-length", "")
        if not length.isdigit():
            raise LLMBadResponseError(f"s3://{self.name}/{key}: the answer tells no size")
        return ObjectHead(
            bucket=self.name,
            key=key,
            size_bytes=int(length),
            etag=reply.headers.get("etag"),
            modified=reply.headers.get("last-modified"),
            sha256=reply.headers.get(OUR_HASH),
        )

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectHead]:
        """Every object whose key begins with ``prefix``, asked for a thousand at a time."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        while True:
            reply = await self._send(_Asked("GET", "", query=query))
            if reply.status != 200:
                raise await self._refused(reply, prefix)
            found, more = read_listing(await reply.read(_MOST_ANSWER))
            for key, size, etag, modified in found:
                yield ObjectHead(
                    bucket=self.name, key=key, size_bytes=size, etag=etag, modified=modified
                )
            if more is None:
                return
            query = {**query, "continuation-token": more}

    def link(self, key: str, lasts_s: int = 3600) -> str:
        """A URL by which anybody may fetch the object, for so many seconds."""
        if not 1 <= lasts_s <= _LONGEST_LINK_S:
            raise LLMInvalidRequestError(
                f"a link for {lasts_s} seconds: expected 1 to {_LONGEST_LINK_S}", param="lasts_s"
            )
        if self.keys is None:
            raise LLMAuthError("a link is signed, and there is no key to sign it with")
        url = self._url(key)
        query = signed_query(
            "GET",
            url.authority,
            url.target,
            keys=self.keys,
            region=self.region,
            at=self._now(),
            lasts_s=lasts_s,
        )
        return f"{url.scheme}://{url.authority}{url.target}?{query}"

    # Writing.

    async def delete(self, key: str) -> None:
        """Remove the object; S3 says the same of one that was not there."""
        reply = await self._send(_Asked("DELETE", key))
        if reply.status not in (200, 204):
            raise await self._refused(reply, key)
        await reply.aclose()

    async def put(
        self,
        key: str,
        path: Path,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        part_bytes: int = _USUAL_PART,
    ) -> ObjectHead:
        """Upload the file: in one request, or in parts where it is larger than one.

        The server checks each request's hash; the whole file's goes with the object (``OUR_HASH``).
        An upload that does not reach its end leaves no parts behind.
        """
        if part_bytes < _SMALLEST_PART:
            raise LLMInvalidRequestError(
                f"part_bytes is {part_bytes}: expected {_SMALLEST_PART} or more", param="part_bytes"
            )
        sha256, size = await asyncio.to_thread(_hash_and_size, path)
        part_bytes = max(part_bytes, -(-size // _MOST_PARTS))
        meta: Headers = ((OUR_HASH, sha256), ("content-type", "application/octet-stream"))
        if size <= part_bytes:
            data = await asyncio.to_thread(_slice, path, 0, size)
            await self._done(_Asked("PUT", key, headers=meta, body=data))
            progress(size, size)
        else:
            await self._put_parts(key, path, size, part_bytes, meta, progress)
        return ObjectHead(bucket=self.name, key=key, size_bytes=size, sha256=sha256)

    async def _put_parts(
        self,
        key: str,
        path: Path,
        size: int,
        part_bytes: int,
        meta: Headers,
        progress: Callable[[int, int], None],
    ) -> None:
        _, begun = await self._done(_Asked("POST", key, query={"uploads": ""}, headers=meta))
        upload = xml_text(read_xml(begun), "UploadId")
        starts = range(0, size, part_bytes)
        etags: dict[int, str] = {}
        room, done = asyncio.Semaphore(_AT_ONCE), 0

        async def put_part(number: int, start: int) -> None:
            nonlocal done
            async with room:
                data = await asyncio.to_thread(_slice, path, start, part_bytes)
                query = {"partNumber": str(number), "uploadId": upload}
                etags[number] = await self._etag_of_part(key, query, data)
                done += len(data)
                progress(done, size)

        try:
            async with asyncio.TaskGroup() as group:
                for number, start in enumerate(starts, 1):
                    group.create_task(put_part(number, start))
            await self._complete(key, upload, etags.items())
        except BaseException as failed:  # noqa: BLE001 - raised again, without its group
            first = failed.exceptions[0] if isinstance(failed, BaseExceptionGroup) else failed
            # Parts that nobody completes or aborts are kept, and paid for, for ever.
            try:
                await self._done(_Asked("DELETE", key, query={"uploadId": upload}))
            except LLMError as error:
                first.add_note(f"the parts of upload {upload} could not be removed: {error}")
            raise first from None

    async def _etag_of_part(self, key: str, query: dict[str, str], data: bytes) -> str:
        reply, _ = await self._done(_Asked("PUT", key, query=query, body=data))
        etag = reply.headers.get("etag")
        if etag is None:
            raise LLMBadResponseError(f"s3://{self.name}/{key}: a part was taken without an ETag")
        return etag

    async def _complete(self, key: str, upload: str, etags: Iterable[tuple[int, str]]) -> None:
        whole = ElementTree.Element("CompleteMultipartUpload")
        for number, etag in sorted(etags):
            part = ElementTree.SubElement(whole, "Part")
            ElementTree.SubElement(part, "PartNumber").text = str(number)
            ElementTree.SubElement(part, "ETag").text = etag
        body = ElementTree.tostring(whole)
        _, answer = await self._done(_Asked("POST", key, query={"uploadId": upload}, body=body))
        said = read_xml(answer)
        if said.tag.rpartition("}")[2] == "Error":
            # It answers with 200 before it knows: only the body tells.
            words = xml_text(said, "Message")
            raise LLMBadResponseError(f"s3://{self.name}/{key}: the upload failed: {words}")

    # One request.

    async def _done(self, asked: _Asked) -> tuple[HttpReply, bytes]:
        """The answer and its body, if it is a success; what may pass is tried again."""
        reply = await patiently(
            partial(self._taken, asked), tries=_TRIES, first_s=_FIRST_WAIT_S, clock=self.clock
        )
        async with aclosing(reply):
            return reply, await reply.read(_MOST_ANSWER)

    async def _taken(self, asked: _Asked) -> HttpReply:
        reply = await self._send(asked)
        if reply.status not in (200, 204):
            raise await self._refused(reply, asked.key)
        return reply

    async def _send(self, asked: _Asked) -> HttpReply:
        url, headers = self._url(asked.key), asked.headers
        if self.keys is not None:
            headers = signed_headers(
                asked.method,
                url.authority,
                url.target,
                asked.query,
                headers,
                keys=self.keys,
                region=self.region,
                at=self._now(),
                payload_sha256=hashlib.sha256(asked.body).hexdigest() if asked.body else _EMPTY,
            )
        if asked.query:
            url = evolve(url, target=f"{url.target}?{query_text(asked.query)}")
        return await self.web.send(
            HttpRequest(method=asked.method, url=url, headers=headers, body=asked.body)
        )

    async def _refused(self, reply: HttpReply, key: str) -> LLMError:
        async with aclosing(reply):
            body = await reply.read(_MOST_ANSWER)
        return error_of(reply, body, f"s3://{self.name}/{key}")

    def _url(self, key: str) -> Url:
        """Servers of one's own have the bucket in the path, AWS in the host's name.

        But for a bucket with a dot, whose host no certificate of AWS would fit.
        """
        at = self.settings.endpoint
        path = "/" + escaped_path(key)
        if at is not None:
            return Url(
                scheme=at.scheme,
                host=at.host,
                port=at.port,
                target=f"{at.target.rstrip('/')}/{self.name}{path if key else ''}",
            )
        suffix = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        host = f"s3.{self.region}.{suffix}"
        if "." in self.name:
            return Url(scheme="https", host=host, port=443, target=f"/{self.name}{path}")
        return Url(scheme="https", host=f"{self.name}.{host}", port=443, target=path)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.wall(), timezone.utc)


def _hash_and_size(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _slice(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)
