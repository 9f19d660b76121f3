"""What one client library costs, measured inside a process of its own; prints JSON.

Runs in the library's own environment, so it needs nothing but the standard library beside it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_KEY = "sk-0123456789abcdef0123456789abcdef"
_MESSAGES = [{"role": "user", "content": "Say the same word again and again."}]
_MODEL = "gpt-4o-mini"
_TOKEN_CHARS = len(" w0000")

Call = Callable[[int, bool], Awaitable[int]]
"""Asks for so many tokens, streamed or whole; gives the length of the answer's text."""


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mb() -> float:
    # Where the system tells: getrusage's peak may be that of the process which started this one.
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def headrace(base: str, concurrency: int) -> Call:
    from headrace import AsyncClient
    from headrace.traffic.endpoint import EndpointSettings

    client = AsyncClient(
        _MODEL,
        provider="openai",
        base_url=base,
        api_key=_KEY,
        endpoint=EndpointSettings(max_running=concurrency),
    )

    async def call(tokens: int, stream: bool) -> int:
        if not stream:
            return len((await client.chat(_MESSAGES[0]["content"], max_tokens=tokens)).text)
        size = 0
        async for event in client.stream_chat(_MESSAGES[0]["content"], max_tokens=tokens):
            size += len(event.delta_text or "")
        return size

    return call


def openai(base: str, concurrency: int) -> Call:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=base, api_key=_KEY)

    async def call(tokens: int, stream: bool) -> int:
        asked: dict[str, Any] = {"model": _MODEL, "messages": _MESSAGES, "max_tokens": tokens}
        if not stream:
            answer = await client.chat.completions.create(**asked)
            return len(answer.choices[0].message.content or "")
        return await _size(await client.chat.completions.create(**asked, **_STREAM))

    return call


def litellm(base: str, concurrency: int) -> Call:
    import litellm as library

    async def call(tokens: int, stream: bool) -> int:
        answer = await library.acompletion(
            model=f"openai/{_MODEL}",
            messages=_MESSAGES,
            max_tokens=tokens,
            api_base=base,
            api_key=_KEY,
            **(_STREAM if stream else {}),
        )
        return await _size(answer) if stream else len(answer.choices[0].message.content)

    return call


def any_llm(base: str, concurrency: int) -> Call:
    from any_llm import AnyLLM

    client = AnyLLM.create("openai", api_key=_KEY, api_base=base)

    async def call(tokens: int, stream: bool) -> int:
        asked: dict[str, Any] = {"model": _MODEL, "messages": _MESSAGES, "max_tokens": tokens}
        answer: Any = await client.acompletion(**asked, **(_STREAM if stream else {}))
        return await _size(answer) if stream else len(answer.choices[0].message.content)

    return call


_STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


async def _size(chunks: Any) -> int:
    size = 0
    async for chunk in chunks:
        if chunk.choices:
            size += len(chunk.choices[0].delta.content or "")
    return size


def nothing(base: str, concurrency: int) -> Call:
    """The interpreter alone, to be told apart from what is imported into it."""

    async def call(tokens: int, stream: bool) -> int:
        raise NotImplementedError

    return call


PEERS = {each.__name__: each for each in (headrace, openai, any_llm, litellm, nothing)}


async def _work(call: Call, calls: int, tokens: int, stream: bool, concurrency: int) -> float:
    """CPU in seconds that all calls together took."""
    left = calls

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            size = await call(tokens, stream)
            assert size == tokens * _TOKEN_CHARS, size

    begin = cpu_s()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return cpu_s() - begin


async def _measure(make: Callable[[str, int], Call], plan: dict[str, Any]) -> dict[str, float]:
    concurrency = plan["concurrency"]
    call = make(plan["base"], concurrency)
    await _work(call, 2 * concurrency, 4, False, concurrency)
    await _work(call, 2 * concurrency, 4, True, concurrency)
    found = {}
    for name, calls, tokens, stream in plan["work"]:
        took = await _work(call, calls, tokens, stream, concurrency)
        found[name] = took / (calls * tokens if name == "chunk" else calls)
    return found


def main() -> None:
    name, plan = sys.argv[1], json.loads(sys.argv[2])
    make = PEERS[name]
    if "work" not in plan:
        make(plan["base"], plan["concurrency"])
        print(json.dumps({"import_s": cpu_s(), "import_mb": peak_mb()}))
    else:
        if plan["loop"] == "uvloop":
            import uvloop

            found = uvloop.run(_measure(make, plan))
        else:
            found = asyncio.run(_measure(make, plan))
        print(json.dumps({**found, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
