"""Both engines with the same real model, on an event loop in a thread, for all tests of a session."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from attrs import field, frozen

from headrace.backends.local.box import Box
from headrace.backends.local.llamacpp import LlamaCpp, LlamaCppSettings
from headrace.backends.local.openvino import OpenVino, OpenVinoSettings
from headrace.contracts.messages import LLMMessage
from headrace.contracts.protocols import Backend
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, TokenLogprob, Usage
from headrace.net.clock import World
from headrace.net.pool import PooledTransport

T = TypeVar("T")
PATIENCE_S = 60.0
NAME = "tiny"


@frozen(kw_only=True)
class Heard:
    """All of one answer."""

    deltas: Sequence[LLMDelta]
    marks: Marks = field(factory=Marks)

    @property
    def text(self) -> str:
        return self.text_of(0)

    def text_of(self, index: int) -> str:
        return "".join(d.text_delta or "" for d in self.deltas if d.index == index)

    @property
    def ends(self) -> list[tuple[str | None, str | None]]:
        return [(d.finish_reason, d.stop_sequence) for d in self.deltas if d.finish_reason]

    @property
    def usage(self) -> Usage:
        (usage,) = [d.usage_delta for d in self.deltas if d.usage_delta is not None]
        return usage

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [each for d in self.deltas for each in d.logprobs or ()]


def ask(text: str = "Tell me of a river.", **settings: Any) -> LLMRequest:
    messages = (
        LLMMessage(role="system", content=""),
        LLMMessage(role="user", content=text),
    )
    return LLMRequest(messages=messages, **{"temperature": 0, "max_tokens": 16, **settings})


ENDLESS: dict[str, Any] = {"provider_options": {"ignore_eos": True}, "max_tokens": 4000}


async def hear(backend: Backend, request: LLMRequest) -> Heard:
    marks = Marks()
    async with aclosing(backend.stream(request, marks)) as pieces:
        deltas = [delta async for delta in pieces]
    return Heard(deltas=deltas, marks=marks)


async def until(what: Any, patience_s: float = PATIENCE_S) -> None:
    """Wait until ``what`` is true; a time limit fails where it never is."""
    async with asyncio.timeout(patience_s):
        while not what():
            await asyncio.sleep(0.02)


class TwoEngines:
    """A Box whose OpenVINO has loaded, both engines from the file at ``path``."""

    def __init__(self, path: Path, *, openvino_from: int = 4) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._path, self._openvino_from = path, openvino_from

    def start(self) -> None:
        self.box = self.run(self._make())

    async def _make(self) -> Box:
        self._transport = PooledTransport()
        box = Box(
            LlamaCppSettings(name=NAME, path=self._path, threads=1),
            OpenVinoSettings(name=NAME, path=self._path, threads=1, exact=True),
            World(transport=self._transport),
            openvino_from=self._openvino_from,
        )
        await box.start()
        assert await box.openvino_settled()
        return box

    @property
    def llamacpp(self) -> LlamaCpp:
        return self.box.llamacpp

    @property
    def openvino(self) -> OpenVino:
        assert self.box.openvino
        return self.box.openvino

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(240)

    def hear(self, backend: Backend, request: LLMRequest) -> Heard:
        return self.run(hear(backend, request))

    def stop(self) -> None:
        async def end() -> None:
            await self.box.aclose()
            await self._transport.aclose()

        if hasattr(self, "box"):
            self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
