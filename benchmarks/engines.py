"""Tokens per second through the gateway, beside each of its engines alone, in the same run.

    python -m benchmarks engines [--streams 1 8 32] [--tokens N] [--repeats N]
                                 [--rate PER_S] [--seconds N] [--threads N]

All are real processes with the model in the box and the gateway's own settings; they are asked in
turns, so that what else the machine does falls on all alike. llama.cpp alone is asked over HTTP and
OpenVINO alone over its socket, each with as many answers at once. ``ratio`` is the gateway beside
the engine that answers there (llama.cpp at one stream, OpenVINO beyond), turn by turn. Then short
answers at a steady rate, and how late the gateway's event loop was in each part.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from headrace.backends.local.llamacpp import LlamaCppSettings, child_settings
from headrace.backends.local.openvino import is_installed
from headrace.backends.local.openvino_frames import Add, FromChild, Hello, Step
from headrace.net.frames import FrameLink, FrameReader, PrivateFolder
from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpRequest, TimeLimits, parse_url
from headrace.stores.models import BOX, ModelStore
from headrace.wire import json as wire_json

PROMPT = "Write a long story about a river that turns a wheel."
LIMITS = TimeLimits(first_byte_s=600, idle_s=600)
# What the seed of this project asks of short answers, in seconds.
GOALS = {50: 0.5, 95: 1.0, 99: 1.5}
_PROMPT_TOKENS = 32

Turn = Callable[[int, int], Awaitable[float]]
"""So many streams of so many tokens; gives tokens a second, all streams together."""


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


async def _start(*program: str, settings: dict[str, object] | None = None) -> Any:
    """A process, and the first line of JSON that it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin
    assert process.stdout
    if settings is not None:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
    said = json.loads(await process.stdout.readline())
    return process, said


async def start_direct(path: Path, threads: int = 0) -> tuple[asyncio.subprocess.Process, str, str]:
    """llama.cpp alone: its process, URL and key."""
    key = secrets.token_urlsafe()
    process, said = await _start(
        "-m",
        "headrace.backends.local.llamacpp_child",
        settings=child_settings(LlamaCppSettings(name=BOX.name, path=path, threads=threads), key),
    )
    return process, said["ready"]["url"], key


class OpenVinoAlone:
    """The OpenVINO child without anything of ours around it but its frames."""

    def __init__(self) -> None:
        self._folder = PrivateFolder()
        self._got = 0
        self._left: set[int] = set()
        self._over = asyncio.Event()
        self._hello = asyncio.Event()
        self._vocabulary = 0
        self._next = 0

    async def start(self, path: Path, threads: int) -> asyncio.subprocess.Process:
        socket = self._folder.path / "alone.sock"
        settings = {
            "path": str(path),
            "socket": str(socket),
            "slots": 32,
            "kv_tokens": 16384,
            "threads": threads,
            "batched_tokens": 256,
            "exact": False,
        }
        process, said = await _start(
            "-m", "headrace.backends.local.openvino_child", settings=settings
        )
        assert "ready" in said, said
        reader: FrameReader[FromChild] = FrameReader(FromChild)
        self._link = await FrameLink.connect(socket, reader, self._heard, lambda _: None)
        await self._hello.wait()
        return process

    def _heard(self, message: FromChild) -> None:
        if isinstance(message, Step):
            for answer_id, tokens, _, reason in message.outputs:
                self._got += len(tokens)
                if reason:
                    self._left.discard(answer_id)
            if not self._left:
                self._over.set()
        elif isinstance(message, Hello):
            self._vocabulary = len(message.pieces)
            self._hello.set()

    async def turn(self, streams: int, tokens: int) -> float:
        """As ``ask`` asks: the same sampling, prompts as long, no answer that ends early."""
        sampling = {"do_sample": True, "temperature": 0.2, "top_p": 0.95, "top_k": 40}
        settings = {**sampling, "min_p": 0.05, "max_new_tokens": tokens, "min_new_tokens": tokens}
        self._got = 0
        self._over.clear()
        begin = time.perf_counter()
        for _ in range(streams):
            self._next += 1
            self._left.add(self._next)
            prompt = [
                100 + secrets.randbelow(self._vocabulary - 100) for _ in range(_PROMPT_TOKENS)
            ]
            self._link.send(Add(self._next, prompt, settings))
        await self._over.wait()
        return self._got / (time.perf_counter() - begin)

    def close(self) -> None:
        self._link.close()
        self._folder.close()


class Served:
    """The gateway in a process of its own, which tells how late its event loop is."""

    async def start(self, log: Path, threads: int) -> None:
        with log.open("wb") as out:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "benchmarks._gateway",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=out,
                env={
                    **os.environ,
                    "HEADRACE_LOG_FORMAT": "json",
                    "HEADRACE_THREADS": str(threads),
                },
            )
        self.url = (await self._said())["url"]
        while is_installed() and b"OpenVINO has loaded" not in log.read_bytes():
            await asyncio.sleep(0.1)

    async def _said(self) -> dict[str, Any]:
        assert self.process.stdout
        line = await self.process.stdout.readline()
        if not line:
            raise SystemExit("the gateway ended")
        said: dict[str, Any] = json.loads(line)
        return said

    async def lateness(self) -> dict[str, Any]:
        """Milliseconds since it was asked last."""
        self.process.send_signal(signal.SIGUSR1)
        return await self._said()


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, its children left out (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(
    streams: int, options: argparse.Namespace, alone: dict[str, Turn], served: Served, through: Turn
) -> None:
    everybody = {**alone, "gateway": through}
    for each in everybody.values():
        await each(streams, 8)
    found: dict[str, list[float]] = {name: [] for name in everybody}
    cpu = 0.0
    late: list[float] = []
    for repeat in range(options.repeats):
        order = list(everybody) if repeat % 2 else list(reversed(everybody))
        for name in order:
            if name == "gateway":
                await served.lateness()
                cpu -= cpu_seconds(served.process.pid)
            found[name].append(await everybody[name](streams, options.tokens))
            if name == "gateway":
                cpu += cpu_seconds(served.process.pid)
                late.append((await served.lateness())["p99_ms"])
    expected = "openvino" if streams > 1 and "openvino" in alone else "llama.cpp"
    ratios = [g / e for g, e in zip(found["gateway"], found[expected], strict=True)]
    per_token = cpu / (options.repeats * streams * options.tokens) * 1e6
    for name, values in found.items():
        print(f"{streams:>7}  {name:<10} {spread(values, '.0f')}")
    beside = [g / e for g, e in zip(found["gateway"], found["llama.cpp"], strict=True)]
    print(
        f"{'':>9}gateway / {expected}: {spread(ratios, '.3f')}; gateway / llama.cpp: "
        f"{spread(beside, '.2f')}; gateway CPU {per_token:.0f} us a token; event loop late "
        f"p99 {spread(late, '.1f')} ms",
        flush=True,
    )


async def steady(
    transport: PooledTransport, served: Served, rate: float, seconds: float, tokens: int
) -> None:
    """Answers of ``tokens`` tokens asked for at ``rate`` a second, however long they take."""
    took: list[float] = []
    errors: list[BaseException] = []

    async def one() -> None:
        begin = time.perf_counter()
        try:
            await ask(transport, served.url, None, tokens)
        except Exception as error:
            errors.append(error)
        else:
            took.append(time.perf_counter() - begin)

    await served.lateness()
    begin, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    late = await served.lateness()
    took.sort()
    shown = ", ".join(
        f"P{q} {took[min(len(took) - 1, len(took) * q // 100)] * 1e3:.0f} ms (goal {goal * 1e3:.0f})"
        for q, goal in GOALS.items()
        if took
    )
    print(
        f"{rate:g} requests/s of {tokens} tokens for {seconds:g} s: {shown}; errors "
        f"{len(errors)} of {len(tasks)}; event loop late p99 {late['p99_ms']:.1f} ms"
    )
    if errors:
        print(f"  the first error: {errors[0]!r}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=0, help="of each engine; 0: its own choice")
    options = parser.parse_args()
    path = ModelStore().find(BOX.name).path
    transport = PooledTransport()
    llamacpp, url, key = await start_direct(path, options.threads)
    ended = [llamacpp]
    alone: dict[str, Turn] = {
        "llama.cpp": lambda streams, tokens: turn(transport, url, key, streams, tokens)
    }
    openvino = OpenVinoAlone() if is_installed() else None
    served = Served()
    with tempfile.TemporaryDirectory() as folder:
        try:
            if openvino is not None:
                ended.append(await openvino.start(path, options.threads))
                alone["openvino"] = openvino.turn
            await served.start(Path(folder) / "gateway.log", options.threads)
            load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
            print(
                f"{BOX.name} ({BOX.requantise}), {options.tokens} tokens an answer; load before: {load}"
            )
            print("streams  who        tok/s: median (least-most)", flush=True)
            for streams in options.streams:
                await measure(
                    streams,
                    options,
                    alone,
                    served,
                    lambda streams, tokens: turn(transport, served.url, None, streams, tokens),
                )
            if options.rate > 0:
                await steady(transport, served, options.rate, options.seconds, 32)
        finally:
            await transport.aclose()
            if openvino is not None:
                openvino.close()
            for child in ended:
                assert child.stdin
                child.stdin.close()
            served.process.terminate()
            await asyncio.gather(*(child.wait() for child in ended), served.process.wait())


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


if __name__ == "__main__":
    uvloop.run(main())
