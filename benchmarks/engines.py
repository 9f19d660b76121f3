"""Tokens per second through the gateway, beside the same engine asked directly, in the same run.

Both are real processes with the model in the box and the same settings; the same client asks
both, in turns, so that what else the machine does falls on both alike. Prints medians, the spread
and the ratio of each pair of turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from headrace.backends.local.llamacpp import LlamaCppSettings, child_settings
from headrace.backends.providers import LLAMA_CPP_SERVER
from headrace.net.clock import SystemClock, World
from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpRequest, TimeLimits, parse_url
from headrace.stores.models import BOX, ModelStore
from headrace.wire import json as wire_json

PROMPT = "Write a long story about a river that turns a wheel."
LIMITS = TimeLimits(first_byte_s=600, idle_s=600)


async def ask(transport: PooledTransport, url: str, key: str | None, tokens: int) -> int:
    """One streamed answer; the tokens that came, by the server's own count."""
    body = wire_json.encode(
        {
            "model": BOX.name,
            "messages": [
                {"role": "system", "content": ""},
                {"role": "user", "content": PROMPT + secrets.token_hex(4)},
            ],
            "max_tokens": tokens,
            "temperature": 0.2,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    headers = [("content-type", "application/json")]
    if key:
        headers.append(("authorization", f"Bearer {key}"))
    request = HttpRequest(
        method="POST",
        url=parse_url(f"{url}/v1/chat/completions"),
        headers=tuple(headers),
        body=body,
    )
    reply = await transport.send(request, LIMITS)
    pieces = bytearray()
    async for piece in reply:
        pieces += piece
    await reply.aclose()
    assert reply.status == 200, bytes(pieces)
    assert pieces.rstrip().endswith(b"data: [DONE]"), bytes(pieces[-200:])
    counts = re.findall(rb'"completion_tokens":(\d+)', pieces)
    return int(counts[-1])


async def turn(
    transport: PooledTransport, url: str, key: str | None, streams: int, tokens: int
) -> float:
    begin = time.perf_counter()
    got = await asyncio.gather(*(ask(transport, url, key, tokens) for _ in range(streams)))
    return sum(got) / (time.perf_counter() - begin)


async def start_direct(path: Path) -> tuple[asyncio.subprocess.Process, str, str]:
    key = secrets.token_urlsafe()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace.backends.local.llamacpp_child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin
    assert process.stdout
    settings = child_settings(LlamaCppSettings(name=BOX.name, path=path), key)
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    said = json.loads(await process.stdout.readline())
    return process, said["ready"]["url"], key


async def start_gateway(log: Path) -> tuple[asyncio.subprocess.Process, str]:
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace",
            "serve",
            "--port",
            "0",
            stdout=out,
            stderr=out,
            env={**os.environ, "HEADRACE_LOG_FORMAT": "json"},
        )
    for _ in range(600):
        found = re.search(rb"chat:\s+(http://\S+)/v1/chat", log.read_bytes())
        if found:
            return process, found[1].decode()
        if process.returncode is not None:
            break
        await asyncio.sleep(0.1)
    raise SystemExit(f"the gateway did not start: {log.read_text()}")


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, its children left out (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 32])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    path = ModelStore().find(BOX.name).path
    transport = PooledTransport()
    world = World(transport=transport, clock=SystemClock())
    assert world.clock.monotonic() > 0
    with tempfile.TemporaryDirectory() as folder:
        direct, direct_url, key = await start_direct(path)
        gateway, gateway_url = await start_gateway(Path(folder) / "gateway.log")
        try:
            print(
                f"{LLAMA_CPP_SERVER.name}, {BOX.name} ({BOX.requantise}), {options.tokens} tokens an answer"
            )
            print(
                "streams  direct tok/s (spread)   gateway tok/s (spread)   ratio (spread)   gateway CPU us/token"
            )
            for streams in options.streams:
                await turn(transport, direct_url, key, streams, 8)
                await turn(transport, gateway_url, None, streams, 8)
                alone, through = [], []
                cpu = 0.0
                for repeat in range(options.repeats):
                    order = ["direct", "gateway"] if repeat % 2 else ["gateway", "direct"]
                    for who in order:
                        if who == "direct":
                            alone.append(
                                await turn(transport, direct_url, key, streams, options.tokens)
                            )
                        else:
                            before = cpu_seconds(gateway.pid)
                            through.append(
                                await turn(transport, gateway_url, None, streams, options.tokens)
                            )
                            cpu += cpu_seconds(gateway.pid) - before
                ratios = [b / a for a, b in zip(alone, through, strict=True)]
                per_token = cpu / (options.repeats * streams * options.tokens) * 1e6
                print(
                    f"{streams:>7}  {spread(alone, '.0f')}        {spread(through, '.0f')}         {spread(ratios, '.3f')}   {per_token:.0f}"
                )
        finally:
            await transport.aclose()
            assert direct.stdin
            direct.stdin.close()
            gateway.terminate()
            await asyncio.gather(direct.wait(), gateway.wait())


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


if __name__ == "__main__":
    uvloop.run(main())
