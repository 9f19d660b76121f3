"""Where a file is asked for by HTTP: a Hugging Face repository, a bucket, or any server."""

from __future__ import annotations

import re
from urllib.parse import quote

from attrs import evolve, frozen

from headrace.net.transport import Headers, Url
from headrace.stores.models.download import Opened
from headrace.stores.models.uri import HubFile
from headrace.stores.s3.bucket import OUR_HASH, Bucket
from headrace.stores.secret import Secret
from headrace.stores.web import Answer, Web, refusal

_OK = (200, 206, 416)
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


@frozen(kw_only=True)
class WebOrigin:
    """A URL, asked for without a key."""

    web: Web
    url: Url
    what: str

    async def open(self, headers: Headers) -> Opened:
        """As Origin says."""
        answer = await self.web.get(self.url, headers)
        if answer.reply.status not in _OK:
            raise await refusal(answer.reply, self.what)
        return Opened(reply=answer.reply)


@frozen(kw_only=True)
class HubOrigin:
    """A file of a repository at ``hub``, asked for as the owner of ``token`` where there is one."""

    web: Web
    hub: Url
    file: HubFile
    token: Secret | None
    what: str

    async def open(self, headers: Headers) -> Opened:
        """As Origin says; for large files the hub tells the SHA-256 before it sends us on."""
        place = "/".join(quote(part, safe="") for part in self.file.path.split("/"))
        revision = quote(self.file.revision, safe="")
        target = f"{self.hub.target.rstrip('/')}/{self.file.repository}/resolve/{revision}/{place}"
        secret: Headers = ()
        if self.token is not None:
            secret = (("Authorization", f"Bearer {self.token.reveal()}"),)
        answer = await self.web.get(evolve(self.hub, target=target), headers, secret)
        if answer.reply.status not in _OK:
            raise await refusal(answer.reply, self.what, self._advice(answer))
        told = _SHA256.fullmatch(answer.header("x-linked-etag") or "")
        return Opened(
            reply=answer.reply,
            sha256=None if told is None else told[1],
            revision=answer.header("x-repo-commit"),
        )

    def _advice(self, answer: Answer) -> dict[int, str]:
        why = answer.header("x-error-message")
        said = f"the hub says {why!r}; " if why else ""
        key = (
            "the token in HF_TOKEN may not read it; its owner may have to ask for access there"
            if self.token is not None
            else "it is private, gated or does not exist: set HF_TOKEN to a token that may read it"
        )
        missing = "look at the repository, the revision and the path"
        return {401: said + key, 403: said + key, 404: said + missing}


@frozen(kw_only=True)
class BucketOrigin:
    """An object in a bucket."""

    bucket: Bucket
    key: str

    async def open(self, headers: Headers) -> Opened:
        """As Origin says; what ``Bucket.put`` left there has the hash of the whole with it."""
        reply = await self.bucket.open(self.key, headers)
        told = _SHA256.fullmatch(reply.headers.get(OUR_HASH, ""))
        return Opened(reply=reply, sha256=None if told is None else told[1])
