"""A mock in a thread of its own, for tests of applications: told anew while it runs, and asked."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

from msgspec import DecodeError, json

from headrace.bench.mock.server import Mock, Seen, listen_on, url_of
from headrace.bench.mock.settings import MockSettings, override, read_fault
from headrace.contracts.errors import LLMInvalidRequestError

_PATIENCE_S = 30.0
_LASTING = {"freeze", "refuse_for", "slow_start", "exact"}


class SeenRequest:
    """A request that came: ``path``, ``headers`` (names in lower case), ``body`` and its ``json``."""

    def __init__(self, seen: Seen) -> None:
        self.method = seen.method
        self.path = seen.path
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in seen.headers.items()
        }
        self.body = seen.body

    @property
    def json(self) -> Any:
        """The body as plain values; None where it is no JSON."""
        try:
            return json.decode(self.body)
        except DecodeError:
            return None

    def __repr__(self) -> str:
        return f"<{self.method} {self.path} {self.body[:80]!r}>"


class MockServer:
    """A running mock: ``url`` is its base (add ``/v1`` for OpenAI's clients).

    Settings are those of ``headrace mock``, in its forms: ``ttft="50ms"``, ``tokens=20``,
    ``faults=["error:5%,status=429"]``.
    """

    def __init__(self, **settings: object) -> None:
        self.requests: list[SeenRequest] = []
        self._settings = override(MockSettings(), _read(settings))
        self._listener = listen_on("127.0.0.1", 0)
        self.url = url_of(self._listener)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mock: Mock | None = None
        self._stop: asyncio.Event | None = None
        self._begun: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="headrace mock", daemon=True)
        self._thread.start()
        self._begun.result(_PATIENCE_S)

    def set(self, **changes: object) -> None:
        """Answer requests that come from now on with these settings changed."""
        for name in _LASTING & changes.keys():
            raise LLMInvalidRequestError(
                f"{name} holds from the start; it is to be given where the mock is started",
                param=name,
            )
        settings = override(self._settings, _read(changes))
        done: Future[None] = Future()

        def change() -> None:
            assert self._mock is not None
            self._mock.settings = settings
            done.set_result(None)

        assert self._loop is not None
        self._loop.call_soon_threadsafe(change)
        done.result(_PATIENCE_S)
        self._settings = settings

    def stop(self) -> None:
        """End it; connections are refused from now on. It may be called twice."""
        if self._thread.is_alive() and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PATIENCE_S)
        self._listener.close()

    def _run(self) -> None:
        import uvloop

        try:
            uvloop.run(self._serve())
        except BaseException as error:
            if self._begun.done():
                raise
            self._begun.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        mock = self._mock = Mock(
            self._settings, on_request=lambda seen: self.requests.append(SeenRequest(seen))
        )
        listening = self._loop.create_task(
            mock.listen(self._listener, lambda: self._begun.set_result(None))
        )
        stopping = self._loop.create_task(self._stop.wait())
        await asyncio.wait((listening, stopping), return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
            await stopping
        else:
            listening.cancel()
        await mock.close()


def _read(settings: dict[str, object]) -> dict[str, object]:
    """``settings`` with faults and models that may be single and written as on the command line."""
    read = dict(settings)
    faults = read.get("faults")
    if faults is not None:
        each = (
            (faults,) if isinstance(faults, str) or not isinstance(faults, list | tuple) else faults
        )
        read["faults"] = [read_fault(f, share=1.0) if isinstance(f, str) else f for f in each]
    if isinstance(read.get("model"), str):
        read["model"] = [read["model"]]
    return read
