"""The model in the box as its users see it: one model, two engines.

llama.cpp answers from the start and can do everything; OpenVINO loads behind it and takes free
text over where several ask at once, which it does three times as fast. Whatever becomes of
OpenVINO, llama.cpp does it all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias

from headrace.backends.local.llamacpp import LlamaCpp, LlamaCppSettings
from headrace.backends.local.openvino import OpenVino, OpenVinoSettings
from headrace.backends.local.openvino_fit import lacks
from headrace.backends.local.vocabulary import writes_reasoning
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus, ModelInfo
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.errors import LLMUnavailableError
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.net.clock import World

log = logging.getLogger(__name__)

Engine: TypeAlias = LlamaCpp | OpenVino

# Callers who come in bursts are not handed to and fro, so that one burst's first requests do not
# keep the processor from the rest in the other engine.
_BUSY_FOR_S = 5.0
_LLAMACPP_BACK_WITHIN_S = 10.0
_LOOK_AGAIN_S = 0.1


class FirstComer(LlamaCpp):
    """llama.cpp, from which another engine may take over what it has not begun to answer.

    A burst begins with one request that seems to be alone. Were it answered here to its end, the
    two engines would keep the processor from one another for as long as that takes.
    """

    def __init__(self, settings: LlamaCppSettings, world: World) -> None:
        super().__init__(settings, world)
        self._heir: OpenVino | None = None
        self._unbegun: set[asyncio.Timeout] = set()

    def hand_over(self, heir: OpenVino) -> None:
        """Let ``heir`` answer all that it can and that has not been begun here."""
        self._heir = heir
        while self._unbegun:
            self._unbegun.pop().reschedule(0.0)

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces; after ``hand_over`` those of the heir, at the place taken here."""
        dropped_before = len(marks.dropped)
        async with aclosing(super().stream(request, marks)) as pieces:
            try:
                async with asyncio.timeout(None) as handed_over:
                    if lacks(request) is None:
                        self._unbegun.add(handed_over)
                    try:
                        first = await anext(pieces, None)
                    finally:
                        self._unbegun.discard(handed_over)
            except TimeoutError:
                if not handed_over.expired():
                    raise
            if not handed_over.expired():
                if first is not None:
                    yield first
                    async for delta in pieces:
                        yield delta
                return
        assert self._heir is not None
        del marks.dropped[dropped_before:]
        marks.sent = marks.first_byte = marks.status = None
        async with aclosing(self._heir.stream(request, marks)) as pieces:
            async for delta in pieces:
                yield delta


class Box:
    """A Backend of two engines; without ``openvino`` it is llama.cpp alone.

    From ``openvino_from`` requests at once on OpenVINO answers what it can, those among them that
    llama.cpp has not begun to answer included. It goes on to until there have been fewer for 5 s
    and it is done with what it has.
    """

    def __init__(
        self,
        llamacpp: LlamaCppSettings,
        openvino: OpenVinoSettings | None,
        world: World,
        *,
        openvino_from: int = 2,
    ) -> None:
        self.name = llamacpp.name
        self.llamacpp = FirstComer(llamacpp, world)
        self.openvino: OpenVino | None = None
        if openvino is not None and not writes_reasoning(llamacpp.template):
            self.openvino = OpenVino(openvino, self._prompt_tokens, world)
        self._clock, self._openvino_from = world.clock, openvino_from
        self._busy_until = float("-inf")
        self._running = 0
        self._loading: asyncio.Task[None] | None = None

    @property
    def model_path(self) -> Path:
        """The model's file, which is the same for both engines."""
        return self.llamacpp.model_path

    @property
    def is_ready(self) -> bool:
        """Whether llama.cpp answers now, for then all is answered."""
        return self.llamacpp.is_ready

    async def start(self) -> None:
        """Load the model into llama.cpp; OpenVINO loads from then on, and nobody waits for it."""
        await self.llamacpp.start()
        if self.openvino is not None:
            self._loading = asyncio.create_task(self._load(self.openvino), name="load OpenVINO")

    async def openvino_settled(self) -> bool:
        """Wait until OpenVINO answers or will not; whether it answers."""
        if self._loading is not None:
            await asyncio.shield(self._loading)
        return self.openvino is not None and self.openvino.is_ready

    def choose(self, request: LLMRequest, running: int) -> Engine:
        """Who shall answer ``request``, where ``running`` others run or wait already."""
        openvino, now = self.openvino, self._clock.monotonic()
        if running + (request.n or 1) >= self._openvino_from:
            self._busy_until = now + _BUSY_FOR_S
        if openvino is None or not openvino.is_ready:
            return self.llamacpp
        is_busy = now < self._busy_until or openvino.running > 0 or not self.llamacpp.is_ready
        if not is_busy or lacks(request) is not None:
            return self.llamacpp
        self.llamacpp.hand_over(openvino)
        return openvino

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces, from whichever engine shall answer; ``marks.provider`` names it."""
        engine = self.choose(request, self._running)
        self._running += 1
        try:
            async with aclosing(engine.stream(request, marks)) as pieces:
                async for delta in pieces:
                    yield delta
        finally:
            self._running -= 1

    async def count_tokens(self, request: LLMRequest) -> int:
        """The prompt's length in tokens, which is the same for both engines."""
        return await self.llamacpp.count_tokens(request)

    async def tokens_of(self, text: str, *, special: bool) -> tuple[tuple[int, bytes], ...]:
        """The tokens of ``text``, which are the same for both engines."""
        return await self.llamacpp.tokens_of(text, special=special)

    async def text_of(self, ids: Sequence[int]) -> str:
        """What the tokens of these numbers say together."""
        return await self.llamacpp.text_of(ids)

    async def models(self) -> tuple[ModelInfo, ...]:
        """The one model that it serves."""
        return await self.llamacpp.models()

    async def status(self) -> BackendStatus:
        """Whether llama.cpp answers now, for then all is answered; details name both engines."""
        status = await self.llamacpp.status()
        details = {**(status.details or {}), "engines": self.snapshot()["engines"]}
        return BackendStatus(
            ok=status.ok, message=status.message, details=details, checked_at=status.checked_at
        )

    def capabilities(self) -> BackendCapabilities:
        """What llama.cpp offers: whatever OpenVINO cannot do is asked of it."""
        return self.llamacpp.capabilities()

    tells_metrics = True

    async def metrics(self) -> tuple[EngineMetrics, ...]:
        """What each engine that runs tells of itself."""
        llamacpp = await self.llamacpp.metrics()
        openvino = self.openvino
        told = (llamacpp, None if openvino is None or not openvino.is_ready else openvino.metrics())
        return tuple(each for each in told if each is not None)

    def snapshot(self) -> Mapping[str, object]:
        """The engines and their processes: for diagnostics."""
        engines: tuple[Engine, ...] = (
            (self.llamacpp,) if self.openvino is None else (self.llamacpp, self.openvino)
        )
        return {"engines": [engine.snapshot() for engine in engines]}

    async def aclose(self) -> None:
        """End both engines."""
        if self._loading is not None:
            self._loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loading
        if self.openvino is not None:
            await self.openvino.aclose()
        await self.llamacpp.aclose()

    async def _prompt_tokens(self, request: LLMRequest) -> Sequence[int]:
        """What llama.cpp makes of the prompt; where it is being started again, as soon as it can."""
        until = self._clock.monotonic() + _LLAMACPP_BACK_WITHIN_S
        while True:
            try:
                return await self.llamacpp.prompt_tokens(request)
            except LLMUnavailableError:
                if self._clock.monotonic() > until:
                    raise
                await self._clock.sleep(_LOOK_AGAIN_S)

    async def _load(self, openvino: OpenVino) -> None:
        begin = self._clock.monotonic()
        try:
            await openvino.start()
        except LLMUnavailableError as failure:
            log.warning("%s; llama.cpp answers everything", failure)
            await openvino.aclose()
            self.openvino = None
            return
        took_s = self._clock.monotonic() - begin
        log.info("OpenVINO has loaded %s in %.1f s", self.name, took_s)
