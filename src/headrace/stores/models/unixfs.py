"""Files and folders as IPFS cuts them into blocks: what one block says. Nothing is asked here.

dag-pb and UnixFS are protobuf messages of a few fields (https://specs.ipfs.tech/unixfs/); they are
read by hand, for a library would be larger than this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from attrs import frozen

from headrace.contracts.errors import LLMBadResponseError, LLMCapabilityError
from headrace.stores.models.cid import DAG_PB, RAW, Cid, cid_from_bytes, read_varint

Kind: TypeAlias = Literal["file", "folder"]

_KINDS: dict[int, Kind] = {0: "file", 1: "folder", 2: "file"}
_OTHERS = {3: "metadata", 4: "a symbolic link", 5: "a folder in many shards"}


@frozen(kw_only=True)
class Link:
    """A block beneath another: its name in a folder, or how many bytes of the file it holds."""

    cid: Cid
    name: str
    size: int | None = None


@frozen(kw_only=True)
class Node:
    """What a block says: bytes of a file before those of its links, or the entries of a folder."""

    kind: Kind
    data: bytes
    links: tuple[Link, ...]

    @property
    def size(self) -> int:
        """The bytes of the file from this block on down."""
        return len(self.data) + sum(link.size or 0 for link in self.links)


def read_node(cid: Cid, block: bytes) -> Node:
    """The block of ``cid``; errors name what of it we do not know."""
    if cid.codec == RAW:
        return Node(kind="file", data=block, links=())
    if cid.codec != DAG_PB:
        raise LLMCapabilityError(
            f"the block {cid} is written in {cid.codec_name}; files are in raw or dag-pb"
        )
    try:
        return _read_dag_pb(cid, block)
    except (ValueError, IndexError) as error:
        raise LLMBadResponseError(f"the block {cid} is no dag-pb: {error}") from error


def _read_dag_pb(cid: Cid, block: bytes) -> Node:
    links: list[tuple[Cid, str]] = []
    unixfs = b""
    for number, value in _fields(block):
        if number == 2:
            links.append(_read_link(_bytes(value)))
        elif number == 1:
            unixfs = _bytes(value)
    kind, data, sizes = 0, b"", []
    for number, value in _fields(unixfs):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2:
            data = _bytes(value)
        elif number == 4:
            sizes += [value] if isinstance(value, int) else _packed(value)
    if kind not in _KINDS:
        raise LLMCapabilityError(
            f"{cid} is {_OTHERS.get(kind, f'of the unknown kind {kind}')}, which is not read here; "
            "name the file by its own CID"
        )
    if _KINDS[kind] == "folder":
        entries = tuple(Link(cid=to, name=name) for to, name in links)
        return Node(kind="folder", data=b"", links=entries)
    if len(sizes) != len(links):
        raise ValueError(f"it has {len(links)} links and {len(sizes)} sizes")
    pieces = tuple(
        Link(cid=to, name=name, size=size) for (to, name), size in zip(links, sizes, strict=True)
    )
    return Node(kind="file", data=data, links=pieces)


def _read_link(message: bytes) -> tuple[Cid, str]:
    cid, name = b"", ""
    for number, value in _fields(message):
        if number == 1:
            cid = _bytes(value)
        elif number == 2:
            name = _bytes(value).decode("utf-8")
    return cid_from_bytes(cid), name


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field's number and value, as protobuf writes them."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = read_varint(message, at)
            yield number, value
        elif wire_type == 2:
            length, at = read_varint(message, at)
            if at + length > len(message):
                raise ValueError("a field is longer than the block")
            yield number, message[at : at + length]
            at += length
        else:
            raise ValueError(f"field {number} has the wire type {wire_type}")


def _packed(value: bytes) -> list[int]:
    found, at = [], 0
    while at < len(value):
        number, at = read_varint(value, at)
        found.append(number)
    return found


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")
    return value
