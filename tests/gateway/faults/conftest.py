"""The gateways of the fault suite: one for each file and each way that a request can take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.faults.upstream import Upstream
from gateway.served import Served

FULL = os.environ.get("HEADRACE_FULL_FAULTS") == "1"
"""Whether to run with the numbers that the promises are made with, which takes minutes."""


@pytest.fixture(scope="module", params=["fast", "general"])
def way(request: pytest.FixtureRequest) -> str:
    """Whether the gateway may pass answers through undecoded where the formats allow it."""
    return str(request.param)


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    """Every backend that the file names in PLAYS."""
    with Upstream() as server:
        server.plays.update(request.module.PLAYS)
        yield server


@pytest.fixture(scope="module")
def front(
    request: pytest.FixtureRequest,
    way: str,
    upstream: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """A gateway whose backends are those of PLAYS, set as BACKENDS has it, behind ROUTES."""
    module: Any = request.module
    own = getattr(module, "BACKENDS", {})
    served = Served(
        tmp_path_factory.mktemp(way),
        {
            "engine": {"enabled": False},
            "embeddings": {"enabled": False},
            "server": {"pass_through": way == "fast", **getattr(module, "SERVER", {})},
            "logging": {"requests": False},
            "backends": [
                {
                    "name": name,
                    "base_url": upstream.base_url(name),
                    "max_retries": 0,
                    **own.get(name, {}),
                }
                for name in upstream.plays
            ],
            "routes": getattr(module, "ROUTES", []),
        },
    )
    try:
        yield served
    finally:
        assert served.stop() == 0
        assert "unexpected error" not in served.log, served.log
        assert "Traceback" not in served.log, served.log
