"""Getting a file from IPFS by way of a gateway that need not be trusted.

The gateway is asked for raw blocks (https://specs.ipfs.tech/http-gateways/trustless-gateway/), and
each is checked against the CID that its parent has of it before a byte of it is kept. So what lies
in the part file is right as far as it goes, wherever the download was cut.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import BinaryIO

from attrs import evolve, frozen

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
)
from headrace.net.clock import Clock
from headrace.net.transport import Url
from headrace.stores.models.cid import RAW, Cid
from headrace.stores.models.download import Received
from headrace.stores.models.unixfs import Link, Node, read_node
from headrace.stores.models.uri import IpfsFile
from headrace.stores.web import Web, patiently, refusal

# The network's own bound is 2 MiB (https://specs.ipfs.tech/bitswap-protocol/#block-sizes).
_MOST_BLOCK = 4 << 20
_AT_ONCE = 8
_TRIES = 6
_FIRST_WAIT_S = 0.5
_DEEPEST = 32


@frozen(kw_only=True)
class IpfsGateway:
    """A gateway, asked block by block."""

    web: Web
    url: Url
    clock: Clock

    async def download(
        self,
        file: IpfsFile,
        part: Path,
        *,
        what: str,
        sha256: str | None,
        progress: Callable[[int, int], None],
    ) -> Received:
        """Bring the file into ``part``; raises as ``models.download.download``."""
        root = await self._resolve(file, what)
        node = read_node(root, await self._block(root))
        if node.kind != "file":
            names = ", ".join(link.name for link in node.links[:8])
            raise LLMInvalidRequestError(
                f"{what} is a folder; name a file in it ({names or 'it is empty'})", param="model"
            )
        part.touch()
        digest, total = hashlib.sha256(), node.size
        with part.open("r+b") as out:
            pieces = _Pieces(self, out)
            async with aclosing(pieces.of(node, 0, 0)) as coming:
                done = 0
                async for piece in coming:
                    digest.update(piece)
                    done += len(piece)
                    progress(done, total)
            out.truncate(done)
            out.flush()
            os.fsync(out.fileno())
        found = digest.hexdigest()
        if sha256 is not None and found != sha256:
            part.unlink()
            raise LLMBadResponseError(
                f"{what} has sha256 {found}, expected {sha256}; what was received is removed"
            )
        return Received(sha256=found, size=done)

    async def _resolve(self, file: IpfsFile, what: str) -> Cid:
        """The CID of the file at the end of the path, through the folders on it."""
        cid = file.cid
        for name in file.path:
            node = read_node(cid, await self._block(cid))
            entry = next((link for link in node.links if link.name == name), None)
            if node.kind != "folder" or entry is None:
                raise LLMModelNotFoundError(f"{what}: there is no {name!r} in {cid}", param="model")
            cid = entry.cid
        return cid

    async def _block(self, cid: Cid) -> bytes:
        """The block of ``cid``, which is it for certain; what may pass is tried again."""
        return await patiently(
            partial(self._ask, cid), tries=_TRIES, first_s=_FIRST_WAIT_S, clock=self.clock
        )

    async def _ask(self, cid: Cid) -> bytes:
        target = f"{self.url.target.rstrip('/')}/ipfs/{cid}?format=raw"
        accept = (("Accept", "application/vnd.ipld.raw"),)
        answer = await self.web.get(evolve(self.url, target=target), accept)
        if answer.reply.status != 200:
            missing = "the gateway finds nobody who has it"
            raise await refusal(
                answer.reply,
                f"the block {cid} from {self.url.origin}",
                {404: missing, 410: "the gateway will not give it", 504: missing},
            )
        async with aclosing(answer.reply):
            block = await answer.reply.read(_MOST_BLOCK)
        if not cid.names(block):
            found = hashlib.sha256(block).hexdigest()
            raise LLMBadResponseError(
                f"{self.url.origin} answered for {cid} with a block of sha256 {found}: it is not "
                "the one asked for; ask another gateway (IPFS_GATEWAY)"
            )
        return block


class _Pieces:
    """A file's bytes in order; those that are in ``out`` and right are not asked for again."""

    def __init__(self, gateway: IpfsGateway, out: BinaryIO) -> None:
        self._gateway, self._out = gateway, out

    async def of(self, node: Node, at: int, depth: int) -> AsyncGenerator[bytes]:
        """The bytes from ``node`` down, which begin at ``at``; each is in ``out`` when it is told."""
        if depth > _DEEPEST:
            raise LLMBadResponseError(f"the file's blocks lie more than {_DEEPEST} deep")
        if node.data:
            self._write(node.data, at)
            yield node.data
            at += len(node.data)
        coming: deque[tuple[Link, bytes | asyncio.Task[bytes]]] = deque()
        links = iter(node.links)
        ahead = at
        try:
            while True:
                while len(coming) < _AT_ONCE and (link := next(links, None)) is not None:
                    coming.append((link, self._begin(link, ahead)))
                    ahead += link.size or 0
                if not coming:
                    return
                link, block = coming.popleft()
                before = at
                async for piece in self._below(link, block, at, depth):
                    at += len(piece)
                    yield piece
                if at - before != link.size:
                    raise LLMBadResponseError(
                        f"the block {link.cid} holds {at - before} bytes of the file, "
                        f"expected {link.size}"
                    )
        finally:
            tasks = [block for _, block in coming if isinstance(block, asyncio.Task)]
            for task in tasks:
                task.cancel()
            # What became of them matters no more: all is here, or something else went wrong first.
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, link: Link, at: int) -> bytes | asyncio.Task[bytes]:
        """The block, where the bytes that lie here are it; else somebody who brings it."""
        if link.cid.codec == RAW and link.size is not None and link.size <= _MOST_BLOCK:
            self._out.seek(at)
            here = self._out.read(link.size)
            if len(here) == link.size and link.cid.names(here):
                return here
        return asyncio.ensure_future(self._gateway._block(link.cid))

    async def _below(
        self, link: Link, block: bytes | asyncio.Task[bytes], at: int, depth: int
    ) -> AsyncGenerator[bytes]:
        if isinstance(block, bytes):
            yield block
            return
        node = read_node(link.cid, await block)
        if node.kind != "file":
            raise LLMBadResponseError(f"the block {link.cid} is a folder within a file")
        async for piece in self.of(node, at, depth + 1):
            yield piece

    def _write(self, data: bytes, at: int) -> None:
        self._out.seek(at)
        self._out.write(data)
