"""The official SDK, and what several of the gateway's tests ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from gateway.served import Served


@pytest.fixture(scope="session")
def sdk(gateway: Served) -> Iterator[OpenAI]:
    """OpenAI's own client, pointed at the gateway; it asks once and never again by itself."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as client:
        yield client
