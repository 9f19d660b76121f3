"""For tests of code that calls models: a mock server, and the pytest fixture ``headrace_mock``.

pytest finds the fixture by itself where headrace is installed. Nothing is loaded before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from headrace.bench.mock.thread import MockServer


class StartMock(Protocol):
    """Starts mock servers."""

    def __call__(self, **settings: object) -> MockServer:
        """A mock with the settings of ``headrace mock``, such as ``ttft="50ms"``; see MockServer."""


@contextmanager
def mock_server(**settings: object) -> Iterator[MockServer]:
    """A mock with the settings of ``headrace mock``, in a thread, that ends with the block."""
    from headrace.bench.mock.thread import MockServer

    server = MockServer(**settings)
    try:
        yield server
    finally:
        server.stop()


def _start_mocks() -> Iterator[StartMock]:
    """Starts mock servers of models' APIs, which end with the test."""
    with ExitStack() as started:

        def start(**settings: object) -> MockServer:
            return started.enter_context(mock_server(**settings))

        yield start


try:
    import pytest
except ModuleNotFoundError:
    # Who has no pytest has no use for a fixture; mock_server is there.
    pass
else:
    headrace_mock = pytest.fixture(_start_mocks, name="headrace_mock")
