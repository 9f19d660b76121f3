"""A model computed out of its folder, as a Backend: its child runs while somebody uses it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from headrace.backends.fit import Fit, echoed
from headrace.backends.local.constrained import Constraints
from headrace.backends.local.folders.answers import deltas
from headrace.backends.local.folders.asked import check, sampling_of
from headrace.backends.local.folders.conversation import prompt_of
from headrace.backends.local.folders.frames import (
    Ask,
    Count,
    Counted,
    ToChild,
)
from headrace.backends.local.folders.line import Answer, Children, Line, slots_of
from headrace.backends.local.folders.rows import FOLDER_ENGINES
from headrace.backends.managed import processes
from headrace.backends.managed.life import Life
from headrace.backends.managed.scales import Scales
from headrace.backends.providers import Provider
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus, ModelInfo
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.engines import EngineConfig, ServerSnapshot
from headrace.contracts.errors import (
    LLMError,
    LLMInvalidRequestError,
    LLMUnavailableError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import (
    LLMDelta,
    Provenance,
)
from headrace.net.clock import World


class FolderEngine:
    """A Backend whose child is started when it is first used, and ended when it is not any more.

    Who comes while it starts waits for it (``life`` says when it runs). ``kind`` is that of its model,
    where it is known already; what some kinds can do besides is in ``opened``.
    """

    def __init__(self, config: EngineConfig, world: World, kind: str | None = None) -> None:
        self.config = config
        self._kind = kind
        self.name = config.name
        self.world = world
        self._row = FOLDER_ENGINES[config.backend]
        self.fit = Fit(config.name, self.provider)
        self._constraints = Constraints(takes_grammars=True)
        self._children = Children(config, world.clock)
        self.life: Life[Line, Line] = Life(
            config.name,
            self._children,
            lambda line: line,
            world.clock,
            lazy=config.lazy,
            idle_s=config.idle_timeout_s,
        )
        self._scales = Scales(world.clock)

    @property
    def provider(self) -> Provider:
        """The row of what it makes of requests."""
        return self._row.provider

    @property
    def slots(self) -> int:
        """How many answers it writes at once."""
        return slots_of(self.config)

    @property
    def remote(self) -> Line | None:
        """The way to its child, while that answers."""
        return self.life.remote

    @property
    def kind(self) -> str | None:
        """The kind of its model (``kinds``), once that is known."""
        line = self.life.remote
        return self._kind if line is None else line.hello.kind

    async def ensure_running(self) -> str:
        """Have it run; where it is then.

        Raises LLMUnavailableError with its last words where it does not start, and
        LLMInvalidRequestError where it cannot with this configuration.
        """
        with self.life.use():
            return (await self.life.ready()).base_url

    async def stop(self) -> None:
        """End it; what is in flight fails. The next use starts it anew."""
        await self.life.stop()

    async def aclose(self) -> None:
        """As ``stop``, for good."""
        await self.life.close()

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces; closing the generator frees the engine within a step."""
        if request.response_mode is None:
            return self._stream(request, marks)
        from headrace.backends.structured import in_its_way

        return in_its_way(self._stream, request, marks, self.provider, self.config.model)

    async def _stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        marks.backend, marks.provider = self.name, self.provider.name
        fitting = self.fit.request(request, marks)
        check(fitting, self.name, self.slots)
        held = await self._constraints.hold(fitting)
        if held is None:
            pieces = self._pieces(fitting, marks)
        else:
            pieces = self._constraints.stream(held, self._pieces, marks)
        if request.echo:
            pieces = echoed(pieces, request)
        async with aclosing(pieces):
            async for delta in pieces:
                yield delta

    async def count_tokens(self, request: LLMRequest) -> int:
        """The prompt's length in tokens, by the model's own template and tokenizer."""
        with self.life.use():
            line = await self.for_a_call()
            prompt = prompt_of(request, reasons=line.hello.reasons)
            told = await only_of(line, lambda number: Count(number, prompt))
        assert isinstance(told, Counted)
        return told.tokens

    async def models(self) -> tuple[ModelInfo, ...]:
        """The one model that it serves."""
        line = self.life.remote
        context = None if line is None else line.hello.context_tokens
        return (ModelInfo(model_id=self.config.model, max_context_tokens=context),)

    async def status(self) -> BackendStatus:
        """Whether it answers now, or will once it is asked: nothing is started to find out."""
        state, failure = self.life.state, self.life.failure
        return BackendStatus(
            ok=self.life.remote is not None or self.life.will_start,
            message=str(failure) if failure else f"the engine is {state}",
            details={"state": state},
            checked_at=Provenance.now_iso(),
        )

    def capabilities(self) -> BackendCapabilities:
        """What its model can be asked for, as far as that is known before it has been loaded."""
        line = self.life.remote
        kind = self.kind
        writes = kind in (None, "generate")
        return BackendCapabilities(
            streaming=writes,
            tool_calling="best_effort" if writes else "none",
            json_mode="native" if writes else "none",
            vision=False,
            max_context_tokens=None if line is None else line.hello.context_tokens,
            logprobs=writes,
            embeddings=kind == "embed",
            known=kind is not None,
        )

    tells_metrics = True

    async def metrics(self) -> tuple[EngineMetrics, ...]:
        """How full it is; nothing is started to find out."""
        line = self.life.remote
        if line is None:
            return ()
        return (
            EngineMetrics(
                engine=self.provider.name,
                running=line.running,
                queued=line.waiting,
                batch_occupancy=min(1.0, line.running / self.slots),
            ),
        )

    def snapshot(self) -> ServerSnapshot:
        """How its child stands."""
        line, failure = self.life.serving, self.life.failure
        pid = None if line is None else line.started.pid
        born = None if pid is None else processes.look(pid)
        uptime = None if line is None else self.world.clock.monotonic() - line.since
        return ServerSnapshot(
            name=self.name,
            model=self.config.model,
            backend=self.config.backend,
            state=self.life.state,
            pid=pid,
            command=() if pid is None else self._children.command,
            started=None if uptime is None else self.world.clock.wall() - uptime,
            uptime_s=uptime,
            restarts=self.life.restarts,
            memory_bytes=None if born is None else self._scales.bytes_of(born.pid, born.born),
            error=None if failure is None else str(failure),
        )

    async def _pieces(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        sampling = sampling_of(request)
        with self.life.use():
            line = await self.for_a_call()
            prompt = prompt_of(request, reasons=line.hello.reasons)
            number, inbox = line.begin(
                lambda number: Ask(
                    call_id=number,
                    prompt=prompt,
                    sampling=sampling,
                    stop=list(request.stop),
                    max_tokens=request.max_tokens,
                    answers=request.n or 1,
                )
            )
            marks.sent = self.world.clock.monotonic()
            is_over = False
            model, clock = request.model or self.name, self.world.clock
            try:
                async for delta in deltas(inbox, request, line.hello, model, marks, clock):
                    yield delta
                is_over = True
            except LLMError as failure:
                failure.provider = failure.provider or self.provider.name
                is_over = not isinstance(failure, LLMUnavailableError)
                raise
            finally:
                line.end(number, is_over=is_over)

    async def for_a_call(self) -> Line:
        """The way to its child; what is wrong with our own settings is no fault of the call's."""
        try:
            line = await self.life.ready()
            while not line.is_open and await self.life.is_gone(line):
                line = await self.life.ready()
            return line
        except LLMInvalidRequestError as wrong:
            raise LLMUnavailableError(
                wrong.message, provider=self.provider.name, transient=False
            ) from wrong


async def only_of(line: Line, message: Callable[[int], ToChild]) -> Answer:
    """The one thing that comes of a call."""
    number, inbox = line.begin(message)
    is_over = False
    try:
        (told,) = await inbox.take()
        is_over = True
    finally:
        line.end(number, is_over=is_over)
    return told
