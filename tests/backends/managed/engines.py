"""Engines of stand-ins, and what tests ask of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.backends.managed.engine import Managed
from headrace.contracts.engines import EngineConfig
from headrace.contracts.messages import LLMMessage
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.net.clock import World
from headrace.net.pool import PooledTransport

STAND_IN = Path(__file__).parent / "stand_in.py"
PATIENCE_S = 30.0
ASK = LLMRequest(messages=(LLMMessage(role="user", content="Hi"),), model="any")


def command(*flags: str) -> tuple[str, ...]:
    """The command line of a stand-in; its program is the interpreter that runs the tests."""
    program = (sys.executable, "-I", "-S", str(STAND_IN))
    return (*program, "{model}", "--port", "{port}", "--host", "{host}", *flags)


def stand_in(*flags: str, **fields: Any) -> EngineConfig:
    """An engine whose program is a stand-in with ``flags``."""
    usual = {"name": "standing", "model": "stand-in-1", "backend": "command"}
    limits = {"startup_timeout_s": 20.0, "stop_timeout_s": 1.0}
    line = () if "endpoint" in fields else command(*flags)
    return EngineConfig(command=line, **{**usual, **limits, **fields})


@asynccontextmanager
async def managed(config: EngineConfig, state: Path, **more: Any) -> AsyncGenerator[Managed, None]:
    """An engine that is closed at the end of the block."""
    transport = PooledTransport()
    engine = Managed(config, World(transport=transport), state=state, **more)
    try:
        yield engine
    finally:
        await engine.aclose()
        await transport.aclose()


async def answer(engine: Managed) -> str:
    """The text of an answer."""
    return "".join([text async for text in texts(engine)])


async def texts(engine: Managed) -> AsyncGenerator[str, None]:
    """The pieces of an answer."""
    async with aclosing(engine.stream(ASK, Marks())) as pieces:
        async for delta in pieces:
            if delta.text_delta:
                yield delta.text_delta


def in_group(pid: int) -> list[int]:
    """The processes that run in the group of ``pid``, by what the system says of all of them."""
    found = []
    for each in Path("/proc").iterdir():
        if not each.name.isdigit():
            continue
        try:
            words = (each / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] not in "ZX" and int(words[2]) == pid:
            found.append(int(each.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs, and not only its status is left."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(what: Callable[[], Any]) -> Any:
    """What ``what`` gives once that is true."""
    end = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < end, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.01)
    return found


def listed(state: Path) -> list[str]:
    """The engines of which something is known to run."""
    return [path.parent.name for path in (state / "engines").glob("*/engine.json")]


def no_process_left(state: Path) -> bool:
    """Whether nothing runs that was started with logs below ``state``."""
    mine = os.getpid()
    for each in Path("/proc").iterdir():
        if not each.name.isdigit() or int(each.name) == mine:
            continue
        try:
            said = str((each / "fd" / "1").readlink())
        except OSError:
            continue
        if said.startswith(str(state)) and is_alive(int(each.name)):
            return False
    return True
