"""The parent's side of a folder's engine: its process, the connection to it, and calls on that."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import TypeAlias

from headrace.backends.child import Spawn
from headrace.backends.local.folders import frames
from headrace.backends.local.folders.frames import (
    Broken,
    Cancel,
    FromChild,
    Hello,
    Output,
    Step,
    ToChild,
)
from headrace.backends.local.folders.rows import model_of, require_installed
from headrace.backends.local.inbox import Inbox
from headrace.backends.local.pulse import Pulse
from headrace.backends.managed.engine import EngineDiedError
from headrace.contracts import errors
from headrace.contracts.capabilities import BackendStatus
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMError, LLMProviderError, LLMUnavailableError
from headrace.contracts.responses import Provenance
from headrace.net.clock import Clock
from headrace.net.frames import FrameError, FrameLink, FrameReader, PrivateFolder

log = logging.getLogger(__name__)

_HELLO_S = 30.0
_RETRY_AFTER_S = 1.0
# A piece of a prompt may take a large model on a small processor a minute.
_STUCK_AFTER_S = 300.0
_USUAL_SLOTS = 16

Answer: TypeAlias = frames.Begun | Output | frames.Counted | frames.Vectors | frames.Scores


class Line:
    """The way to a child that answers, until it ends; ``lost`` is called when the connection does."""

    def __init__(self, name: str, spawn: Spawn, socket: Path, clock: Clock) -> None:
        self.base_url = f"unix:{socket}"
        self.started = spawn
        self.since = clock.monotonic()
        self.running = self.waiting = 0
        self._name = name
        self._hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self._link: FrameLink[FromChild] | None = None
        self._calls: dict[int, Inbox[Answer]] = {}
        self._ids = count(1)
        self._last_words = ""
        self._pulse = Pulse(clock, _STUCK_AFTER_S, lambda: bool(self._calls), self._still)

    @property
    def hello(self) -> Hello:
        """What the child said of itself."""
        return self._hello.result()

    @property
    def is_open(self) -> bool:
        """Whether its child is there, as far as the connection tells."""
        return self._link is not None

    async def connect(self, socket: Path) -> None:
        """Reach it; raises LLMUnavailableError where it does not answer."""
        try:
            async with asyncio.timeout(_HELLO_S):
                self._link = await FrameLink.connect(
                    socket, FrameReader(FromChild), self._heard, self._cut
                )
                await self._hello
        except (OSError, TimeoutError) as failure:
            raise LLMUnavailableError(
                f"the child of engine {self._name!r} does not answer: {failure}"
            ) from failure

    def begin(self, message: Callable[[int], ToChild]) -> tuple[int, Inbox[Answer]]:
        """Send the message of a new call; its number, and where what comes of it will be.

        Raises LLMInvalidRequestError where no message can hold it.
        """
        number, inbox = next(self._ids), Inbox[Answer]()
        if self._link is None:
            raise self._died()
        try:
            self._link.send(message(number))
        except FrameError as unfit:
            raise errors.LLMInvalidRequestError(
                f"the request cannot be handed to engine {self._name!r}: {unfit}"
            ) from unfit
        self._calls[number] = inbox
        self._pulse.watch()
        return number, inbox

    def end(self, number: int, *, is_over: bool) -> None:
        """Hear no more of a call; the child computes no more of one that is not over."""
        if self._calls.pop(number, None) is not None and not is_over and self._link is not None:
            self._link.send(Cancel(number))

    async def status(self) -> BackendStatus:
        """That it answers."""
        return BackendStatus(ok=self._link is not None, checked_at=Provenance.now_iso())

    def close(self) -> None:
        """End the connection; what is in flight fails."""
        self._pulse.close()
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._fail_all()

    def _heard(self, message: FromChild) -> None:
        self._pulse.beat()
        calls = self._calls
        if isinstance(message, Step):
            self.running, self.waiting = message.running, message.waiting
            for output in message.outputs:
                inbox = calls.get(output.call_id)
                if inbox is not None:
                    inbox.put(output)
        elif isinstance(message, Hello):
            if not self._hello.done():
                self._hello.set_result(message)
        elif isinstance(message, Broken):
            self._last_words = message.message
            log.error("engine %s failed: %s", self._name, message.message)
        elif (inbox := calls.get(message.call_id)) is not None:
            if isinstance(message, frames.Failed):
                inbox.fail(_error_of(message))
            else:
                inbox.put(message)

    def _cut(self, broken: Exception | None) -> None:
        if self._link is None:
            return  # it is we who closed it
        if broken is not None:
            log.error("the connection to engine %s broke: %s", self._name, broken)
        self.started.kill()
        self.close()

    def _still(self) -> None:
        self._last_words = f"it had work and reported nothing for {_STUCK_AFTER_S:g} s"
        log.error("engine %s is stuck and is being ended: %s", self._name, self._last_words)
        self.started.kill()

    def _fail_all(self) -> None:
        calls, self._calls = self._calls, {}
        for inbox in calls.values():
            inbox.fail(self._died())

    def _died(self) -> EngineDiedError:
        reason = f": {self._last_words}" if self._last_words else ""
        return EngineDiedError(
            f"engine {self._name!r} ended while it answered{reason}; the next call has it started "
            "again",
            retry_after_s=_RETRY_AFTER_S,
        )


class Children:
    """Has the child of one engine run: what ``Life`` starts and leaves."""

    def __init__(self, config: EngineConfig, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._spawn: Spawn | None = None
        self._line: Line | None = None
        self._place: PrivateFolder | None = None
        self.command: tuple[str, ...] = (
            config.program or sys.executable,
            *("-m", "headrace.backends.local.folders.child"),
        )

    async def start(self) -> Line:
        """Start it, and wait until it has loaded its model.

        Raises LLMInvalidRequestError for what it cannot be started with, LLMUnavailableError with
        its last words where it does not get there.
        """
        config = self._config
        require_installed(config)
        model = model_of(config)
        self._place, self._line = PrivateFolder(), None
        socket = self._place.path / "engine.sock"
        settings: dict[str, object] = {
            "engine": config.backend,
            "socket": str(socket),
            "model": model,
            "kind": config.task,
            "device": config.device or "cpu",
            "dtype": config.dtype,
            "attention": config.attention,
            "trust_remote_code": bool(config.trust_remote_code),
            "max_model_len": config.max_model_len,
            "slots": slots_of(config),
        }
        self._spawn = Spawn(
            config.name,
            self.command,
            settings,
            start_s=config.startup_timeout_s,
            stop_s=config.stop_timeout_s,
            env=_environment(config),
        )
        try:
            await self._spawn.start()
            self._line = Line(config.name, self._spawn, socket, self._clock)
            await self._line.connect(socket)
        except BaseException:
            await asyncio.shield(self.leave())
            raise
        return self._line

    async def ended(self) -> int | None:
        """Wait until it has ended by itself; its exit status."""
        assert self._spawn is not None
        return await self._spawn.ended()

    async def leave(self) -> None:
        """End it; what is in flight fails."""
        if self._line is not None:
            self._line.close()
        if self._spawn is not None:
            await self._spawn.end()
        if self._place is not None:
            self._place.close()

    def tail(self) -> str:
        """Its last words."""
        return "" if self._spawn is None else self._spawn.tail()


def slots_of(config: EngineConfig) -> int:
    """How many answers it writes at once."""
    return _USUAL_SLOTS if config.slots is None else config.slots


def _environment(config: EngineConfig) -> Mapping[str, str]:
    env = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    if config.gpu_ids:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, config.gpu_ids))
    return {**env, **config.extra_env}


def _error_of(told: frames.Failed) -> LLMError:
    kind = getattr(errors, told.error, None)
    if not (isinstance(kind, type) and issubclass(kind, LLMError)):
        kind = LLMProviderError
    return kind(told.message, param=told.param, code=told.code)
