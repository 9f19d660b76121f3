"""Engines that answer lists of prompts: in order, with what went wrong in the place of an answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from headrace.client.async_client import AsyncClient
from headrace.client.portal import portal
from headrace.client.registry import get_engine_config
from headrace.client.sync_client import Client
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMChatParams
from headrace.contracts.responses import LLMResponse

Prompt = str | Sequence[LLMMessage]
SamplingParams = LLMChatParams | Mapping[str, Any]


class AsyncEngine:
    """An engine by its registered name, or its EngineConfig; ``settings`` are those of AsyncClient.

    It is started by its first use, or by ``async with`` where it is not lazy, and ended by
    ``aclose`` where nobody else uses it. ``client`` is the client by which it is asked.
    """

    def __init__(self, engine: str | EngineConfig, **settings: Any) -> None:
        self.client = AsyncClient(engine=engine, **settings)

    @property
    def config(self) -> EngineConfig:
        """What it was registered with."""
        return _config(self.client)

    async def start(self) -> str:
        """Have it run, and wait until it answers; its address."""
        return await self.client.start_engine()

    async def stop(self) -> None:
        """End it, where nobody else uses it; its next use starts it anew."""
        await self.client.stop_engine()

    async def generate(
        self, prompts: Sequence[Prompt], sampling_params: SamplingParams | None = None
    ) -> list[LLMResponse | LLMError]:
        """An answer for each of ``prompts``, in their order, or the error that came instead of it.

        A prompt is a text, which is one user turn, or a list of messages. ``sampling_params`` are
        LLMChatParams, or fields of LLMRequest by name, and hold for all of them. Where the engine
        does not start, its error stands for each.
        """
        return await answers(self.client, prompts, sampling_params)

    def server_snapshot(self) -> Mapping[str, object] | None:
        """How its server stands; ``None`` where somebody else runs it."""
        return self.client.server_snapshot()

    async def aclose(self) -> None:
        """End what it started, where nobody else uses it; a second call does nothing."""
        await self.client.aclose()

    close = aclose

    async def __aenter__(self) -> Self:
        if not self.config.lazy:
            await _or_closed(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.name!r})"


class Engine:
    """As AsyncEngine, from any thread; what it started is ended at the interpreter's exit at last."""

    def __init__(self, engine: str | EngineConfig, **settings: Any) -> None:
        self.client = Client(engine=engine, **settings)

    @property
    def config(self) -> EngineConfig:
        """What it was registered with."""
        return _config(self.client)

    def start(self) -> str:
        """Have it run, and wait until it answers; its address."""
        return self.client.start_engine()

    def stop(self) -> None:
        """End it, where nobody else uses it; its next use starts it anew."""
        self.client.stop_engine()

    def generate(
        self, prompts: Sequence[Prompt], sampling_params: SamplingParams | None = None
    ) -> list[LLMResponse | LLMError]:
        """An answer for each of ``prompts``, in their order, or the error that came instead of it."""
        core = self.client.on_portal()
        return portal().run(lambda: answers(core, prompts, sampling_params))

    def server_snapshot(self) -> Mapping[str, object] | None:
        """How its server stands; ``None`` where somebody else runs it."""
        return self.client.server_snapshot()

    def close(self) -> None:
        """End what it started, where nobody else uses it; a second call does nothing."""
        self.client.close()

    def __enter__(self) -> Self:
        if not self.config.lazy:
            try:
                self.start()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.name!r})"


def generate(
    engine_name: str,
    prompts: Sequence[Prompt],
    sampling_params: SamplingParams | None = None,
) -> list[LLMResponse | LLMError]:
    """As ``Engine(engine_name).generate``, by one engine of that name for the whole process.

    It runs on between calls, until it was idle for its ``idle_timeout_s``, until
    ``unregister_engine``, or until the interpreter ends.
    """
    config = get_engine_config(engine_name)
    with _lock:
        engine = _shared.get(engine_name)
        if engine is None or engine.config != config:
            engine = _shared[engine_name] = Engine(config)
    return engine.generate(prompts, sampling_params)


def forget(engine_name: str) -> None:
    """End what ``generate`` started of it."""
    with _lock:
        engine = _shared.pop(engine_name, None)
    if engine is not None:
        engine.close()


async def answers(
    client: AsyncClient, prompts: Sequence[Prompt], sampling_params: SamplingParams | None
) -> list[LLMResponse | LLMError]:
    """What ``client`` answers to each; no more at once than its engine takes."""
    if isinstance(prompts, str):
        raise LLMInvalidRequestError(
            "prompts is one text, must be a list of prompts: [text]", param="prompts"
        )
    params = sampling_params if isinstance(sampling_params, LLMChatParams) else None
    settings: Mapping[str, Any] = sampling_params if isinstance(sampling_params, Mapping) else {}
    try:
        await client.start_engine()
    except LLMError as failure:
        return [failure] * len(prompts)
    found: list[LLMResponse | LLMError | None] = [None] * len(prompts)
    left = iter(enumerate(prompts))

    async def work() -> None:
        for place, prompt in left:
            try:
                found[place] = await client.chat(prompt, params=params, **settings)
            except LLMError as failure:
                found[place] = failure

    async with asyncio.TaskGroup() as group:
        for _ in range(min(len(prompts), client.runs_at_once)):
            group.create_task(work())
    return [each for each in found if each is not None]


async def _or_closed(engine: AsyncEngine) -> None:
    try:
        await engine.start()
    except BaseException:
        await engine.aclose()
        raise


def _config(client: AsyncClient | Client) -> EngineConfig:
    assert client.engine is not None
    return client.engine


_shared: dict[str, Engine] = {}
_lock = threading.Lock()
