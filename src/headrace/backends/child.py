"""A child process that serves us: started, watched, started again when it dies, ended with us.

The contract with the program: its settings are one line of JSON on its standard input; it answers
one line of JSON on its standard output, ``{"ready": {...}}`` or ``{"error": "..."}``, with
``"final": true`` beside it where the next start would fail as well; it ends when its standard input
ends, so it never outlives us, however we die.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.contracts.errors import LLMUnavailableError

log = logging.getLogger(__name__)

_LINES_KEPT = 40
_STOP_S = 5.0
_RESTART_FIRST_S, _RESTART_MOST_S = 0.1, 10.0
_LONG_LIFE_S = 60.0


class Spawn:
    """One such process at a time: started, waited for, ended.

    ``env`` is added to our own environment.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        settings: Mapping[str, object],
        *,
        start_s: float,
        stop_s: float = _STOP_S,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.pid: int | None = None
        self._command = list(command)
        self._settings = json.dumps(dict(settings)).encode() + b"\n"
        self._start_s, self._stop_s = start_s, stop_s
        self._env = env
        self._process: asyncio.subprocess.Process | None = None
        self._last_words: deque[str] = deque(maxlen=_LINES_KEPT)

    async def start(self) -> Mapping[str, object]:
        """Start it and wait until it is ready; what it said.

        Raises LLMUnavailableError if it does not get there.
        """
        self._last_words.clear()
        # A process group of its own: Ctrl-C in the terminal must reach us, not it, so that what
        # is in flight can still be finished.
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=None if self._env is None else {**os.environ, **self._env},
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.pid = process.pid
        listener = asyncio.create_task(self._listen(process.stderr))
        try:
            process.stdin.write(self._settings)
            async with asyncio.timeout(self._start_s):
                await process.stdin.drain()
                line = await process.stdout.readline()
            said: dict[str, Any] = (
                json.loads(line) if line else {"error": f"it ended at once: {self.tail()}"}
            )
        except TimeoutError:
            said = {"error": f"it was not ready within {self._start_s:g} s: {self.tail()}"}
        except (ConnectionError, ValueError) as broken:
            said = {"error": f"{broken}: {self.tail()}"}
        except BaseException:
            await self.end()
            raise
        if "ready" in said:
            return dict(said["ready"])
        await self.end()
        await listener
        raise LLMUnavailableError(
            f"engine {self.name} did not start: {said['error']}",
            transient=not said.get("final", False),
        )

    async def ended(self) -> int:
        """Wait until it has ended; its exit status, a signal's negative."""
        assert self._process
        code = await self._process.wait()
        self.pid = None
        return code

    def kill(self) -> None:
        """End it at once and by force."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        """End it: by the end of its input, after a while by force."""
        process, self._process, self.pid = self._process, None, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin
        process.stdin.close()
        try:
            async with asyncio.timeout(self._stop_s):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def tail(self) -> str:
        """The last lines that it wrote to standard error."""
        return " | ".join(list(self._last_words)[-5:]) or "it said nothing"

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line without end; asyncio has dropped it
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._last_words.append(text)
            log.debug("%s: %s", self.name, text)


class Child:
    """One supervised child process.

    ``on_ready`` is called with what the child said, each time it is ready; ``on_gone`` when it has
    died. A child that dies is started again, at once the first time and then after waits that
    double up to 10 s; a life of a minute resets them.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        settings: Mapping[str, object],
        *,
        start_s: float,
        on_ready: Callable[[Mapping[str, object]], None],
        on_gone: Callable[[], None],
    ) -> None:
        self.name = name
        self.restarts = 0
        self._spawn = Spawn(name, command, settings, start_s=start_s)
        self._on_ready, self._on_gone = on_ready, on_gone
        self._supervisor: asyncio.Task[None] | None = None
        self._failure: LLMUnavailableError | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._spawn.pid

    @property
    def failure(self) -> LLMUnavailableError | None:
        """Why the last start failed; ``None`` while it runs or starts for the first time."""
        return self._failure

    async def start(self) -> None:
        """Start it and wait until it is ready; raises LLMUnavailableError if it does not get there."""
        ready = await self._spawn.start()
        self._on_ready(ready)
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")

    async def stop(self) -> None:
        """End it: by the end of its input, after 5 s by force."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        await self._spawn.end()

    def kill(self) -> None:
        """End it at once and by force, because it is no good any more; it is started again."""
        self._spawn.kill()

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        wait = 0.0
        while True:
            born = loop.time()
            code = await self._spawn.ended()
            self._on_gone()
            if loop.time() - born > _LONG_LIFE_S:
                wait = 0.0
            log.error("engine %s died (exit status %s): %s", self.name, code, self._spawn.tail())
            while True:
                await asyncio.sleep(wait)
                wait = min(max(wait * 2, _RESTART_FIRST_S), _RESTART_MOST_S)
                try:
                    ready = await self._spawn.start()
                except LLMUnavailableError as failure:
                    self._failure = failure
                    log.error("%s; trying again in %.1f s", failure, wait)
                    continue
                break
            self.restarts += 1
            self._failure = None
            log.warning("engine %s is back (restart %d)", self.name, self.restarts)
            self._on_ready(ready)
