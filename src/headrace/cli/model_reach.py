"""Where the ``headrace model`` commands fetch from: the environment, and what the flags say of S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.stores.models.reach import Reach


def reach(endpoint_url: str | None, anonymous: bool) -> Reach:
    """As the environment says; the flags go before it."""
    from attrs import evolve

    from headrace.stores.models.reach import reach_of_environment
    from headrace.stores.s3.settings import read_endpoint

    found = reach_of_environment()
    s3 = found.s3
    if endpoint_url is not None:
        s3 = evolve(s3, endpoint=read_endpoint(endpoint_url, "--endpoint-url"))
    if anonymous:
        s3 = evolve(s3, anonymous=True)
    return evolve(found, s3=s3)
