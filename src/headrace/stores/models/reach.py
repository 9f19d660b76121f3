"""From where model files may be fetched, and as whom: read from the environment, once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from headrace.net.proxy import ENVIRONMENT, Proxies, find_proxies
from headrace.net.transport import Url, parse_url
from headrace.stores.credentials import Credentials
from headrace.stores.s3.settings import S3Settings, find_keys, read_endpoint, s3_settings

if TYPE_CHECKING:
    from headrace.net.clock import Clock
    from headrace.stores.s3.bucket import Bucket
    from headrace.stores.web import Web

_HUB = "https://huggingface.co"
# What it hands over is checked against the CID, so that it need not be trusted.
_IPFS = "https://trustless-gateway.link"


@frozen(kw_only=True)
class Reach:
    """The addresses that are asked, and the hosts within private networks that may be.

    The hosts of addresses that were configured may always be asked.
    """

    hub: Url = field(factory=partial(parse_url, _HUB))
    ipfs: Url = field(factory=partial(parse_url, _IPFS))
    s3: S3Settings = field(factory=S3Settings)
    private_hosts: frozenset[str] = frozenset()
    proxies: Proxies = field(factory=Proxies)
    credentials: Credentials = field(factory=Credentials, repr=False)

    @property
    def askable(self) -> frozenset[str]:
        """The hosts that may be asked wherever they are, in small letters."""
        named = {url.host.lower() for url in (self.hub, self.ipfs, self.s3.endpoint) if url}
        return self.private_hosts | named


def reach_of_environment(environment: Mapping[str, str] | None = None) -> Reach:
    """As these variables say; each is the one that others read, where there is such a one.

    HF_ENDPOINT, IPFS_GATEWAY, those of S3 (``s3_settings``), the proxies', and
    HEADRACE_PRIVATE_HOSTS, names and addresses separated by commas.
    """
    said = os.environ if environment is None else environment
    reach = Reach(
        s3=s3_settings(said),
        private_hosts=frozenset(
            host.strip().strip("[]").lower()
            for host in said.get("HEADRACE_PRIVATE_HOSTS", "").split(",")
            if host.strip()
        ),
        proxies=find_proxies(ENVIRONMENT, said),
        credentials=Credentials() if environment is None else Credentials(environment=environment),
    )
    if hub := said.get("HF_ENDPOINT"):
        reach = evolve(reach, hub=read_endpoint(hub, "HF_ENDPOINT"))
    if ipfs := said.get("IPFS_GATEWAY"):
        reach = evolve(reach, ipfs=read_endpoint(ipfs, "IPFS_GATEWAY"))
    return reach


@asynccontextmanager
async def reaching(reach: Reach) -> AsyncIterator[Web]:
    """The web as far as ``reach`` goes, with connections of its own."""
    from headrace.net.pool import PooledTransport
    from headrace.stores.web import Web, admits

    transport = PooledTransport(admits=admits(reach.askable))
    try:
        yield Web(transport=transport, proxies=reach.proxies, private_hosts=reach.askable)
    finally:
        await transport.aclose()


def bucket_of(reach: Reach, web: Web, name: str, clock: Clock) -> Bucket:
    """The bucket, as whoever the credentials say; LLMAuthError where they say nobody."""
    from headrace.stores.s3.bucket import Bucket

    keys = find_keys(reach.s3, reach.credentials)
    return Bucket(name=name, settings=reach.s3, keys=keys, web=web, clock=clock)
