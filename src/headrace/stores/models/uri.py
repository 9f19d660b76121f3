"""Model files by URI: which forms there are, and what each names. Nothing is asked or opened here.

    file:PATH                            a file on this machine
    hf:OWNER/NAME[@REVISION]/PATH        a file of a Hugging Face repository
    s3://BUCKET/KEY                      an object in S3, or in a server that speaks it
    ipfs:CID[/PATH]                      a file in IPFS, whoever hands it over
    pypi:NAME==VERSION/PATH              a file inside a released wheel
    https://HOST/PATH#sha256=HEX         a file anywhere, of which the hash is known

Each may end in ``#sha256=HEX``, the hash that the file must have; ``https:`` must.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import unquote

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.transport import Url, parse_url
from headrace.stores.models.cid import Cid, read_cid
from headrace.stores.models.pypi import WheelMember
from headrace.stores.models.schemes import SCHEMES

_SCHEME = re.compile(rf"(?P<scheme>{'|'.join(SCHEMES)}):(?P<rest>.*)", re.DOTALL)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HUB = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+(?:%2F[\w.-]+)*))?/(?P<path>.+)",
    re.ASCII | re.IGNORECASE,
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@frozen(kw_only=True)
class HubFile:
    """A file of a Hugging Face repository, as of ``revision``: a branch, a tag or a commit."""

    repository: str
    revision: str
    path: str


@frozen(kw_only=True)
class S3Object:
    """An object in a bucket."""

    bucket: str
    key: str


@frozen(kw_only=True)
class IpfsFile:
    """A file by its content; with a ``path``, ``cid`` is the folder that it lies in."""

    cid: Cid
    path: tuple[str, ...] = ()


Place: TypeAlias = Path | HubFile | S3Object | IpfsFile | WheelMember | Url


@frozen(kw_only=True)
class ModelUri:
    """A model file's URI, read; ``file_name`` is what to call it here.

    ``text`` is without the hash where it can be read again without.
    """

    text: str
    place: Place
    file_name: str
    sha256: str | None = None


def read_uri(text: str) -> ModelUri:
    """Read ``text``; LLMInvalidRequestError says what is wrong with it and what would be right."""
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise _wrong(text, f"expected one that begins with {', '.join(f'{s}:' for s in SCHEMES)}")
    if _CONTROL.search(text):
        raise _wrong(text, "it holds a control character")
    bare, mark, fragment = text.rpartition("#sha256=")
    sha256 = None
    if mark:
        sha256 = fragment.lower()
        if not _SHA256.fullmatch(sha256):
            raise _wrong(text, f"#sha256={fragment} is no SHA-256; expected 64 hexadecimal digits")
    else:
        bare = text
    scheme, rest = match["scheme"], bare.partition(":")[2]
    place, path = _place(scheme, rest, bare, sha256)
    name = PurePosixPath(path).name
    if name in {"", ".", ".."} or path.endswith("/"):
        raise _wrong(text, "it names no file; expected a file's name at the end")
    if _CONTROL.search(path):
        raise _wrong(text, "its path holds a control character")
    if isinstance(place, Url):
        # Without its hash it would be no URI that could be read again.
        bare = f"{bare}#sha256={sha256}"
    return ModelUri(text=bare, place=place, file_name=name, sha256=sha256)


def _place(scheme: str, rest: str, text: str, sha256: str | None) -> tuple[Place, str]:
    """What is named, and the path whose last part is the file's name."""
    if scheme == "file":
        return _file(rest, text)
    if scheme == "hf":
        return _hub(rest, text)
    if scheme == "s3":
        return _s3(rest, text)
    if scheme == "ipfs":
        return _ipfs(rest, text)
    if scheme == "pypi":
        member = WheelMember.parse(text)
        return member, member.member
    if sha256 is None:
        raise _wrong(
            text, "a file from anywhere must be known by its hash; write #sha256=HEX behind it"
        )
    url = parse_url(text)
    return url, unquote(url.target.partition("?")[0])


def _file(rest: str, text: str) -> tuple[Place, str]:
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        if host not in {"", "localhost"}:
            raise _wrong(text, f"the file is on {host!r}; expected file:/PATH or file:///PATH")
        rest = f"/{path}"
    path = unquote(rest)
    return Path(path).expanduser(), path


def _hub(rest: str, text: str) -> tuple[Place, str]:
    match = _HUB.fullmatch(rest)
    if match is None:
        raise _wrong(text, "expected hf:OWNER/NAME[@REVISION]/PATH; a '/' in a revision is %2F")
    path = match["path"]
    if {"", ".", ".."} & set(path.split("/")):
        raise _wrong(text, f"{path!r} is no path within a repository")
    found = HubFile(
        repository=match["repository"], revision=unquote(match["revision"] or "main"), path=path
    )
    return found, path


def _s3(rest: str, text: str) -> tuple[Place, str]:
    bucket, _, key = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not key:
        raise _wrong(text, "expected s3://BUCKET/KEY")
    return S3Object(bucket=checked_bucket(bucket), key=key), key


def checked_bucket(bucket: str) -> str:
    """``bucket``, which is part of a host's name or of a path, where it is one."""
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise LLMInvalidRequestError(
            f"bad bucket name {bucket!r}: expected 3 to 255 letters, digits, '.', '-' and '_'",
            param="bucket",
        )
    return bucket


def _ipfs(rest: str, text: str) -> tuple[Place, str]:
    cid, *path = rest.removeprefix("//").split("/")
    if "" in path or {".", ".."} & set(path):
        raise _wrong(text, "expected ipfs:CID or ipfs:CID/PATH")
    names = tuple(unquote(part) for part in path)
    return IpfsFile(cid=read_cid(cid), path=names), "/".join((cid, *names))


def _wrong(text: str, why: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"bad model URI {text!r}: {why}", param="model")
