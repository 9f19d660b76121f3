"""For tests of code that calls models: the pytest fixture ``headrace_mock``.

pytest finds it by itself where headrace is installed. Nothing is loaded before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from headrace.bench.mock.thread import MockServer


class StartMock(Protocol):
    """Starts mock servers."""

    def __call__(self, **settings: object) -> MockServer:
        """A mock with the settings of ``headrace mock``, such as ``ttft="50ms"``; see MockServer."""


@pytest.fixture
def headrace_mock() -> Iterator[StartMock]:
    """Starts mock servers of models' APIs, which end with the test."""
    from headrace.bench.mock.thread import MockServer

    started: list[MockServer] = []

    def start(**settings: object) -> MockServer:
        server = MockServer(**settings)
        started.append(server)
        return server

    try:
        yield start
    finally:
        for server in started:
            server.stop()
