"""What a gateway still holds after very many requests, and callers that left in every state.

    python -m benchmarks soak [--requests N] [--disconnects N] [--growth-mib N] [--translate]

One gateway before a mock, with a record of every call in a file that is begun anew again and again.
Three in four requests are answered whole, the others streamed; meanwhile others leave: while they
wait in the queue, before the first byte, while their answer streams, and while they wait for a
whole one. That each is in its state before it leaves, the gateway's own metrics say.

A tenth of it all is the warm-up, or more of a short run. Said is what the gateway uses after that and at the end; it fails
where memory has grown by more than ``--growth-mib``, where a descriptor or a running call is left
over, or where the metrics have not counted every call. With ``--translate`` no request goes the
fast way.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
import yaml
from attrs import frozen

from ._gateway_load import Ask, Crowd, first_answer
from ._processes import Tree, environment, free_port, started

_KEY = "sk-soak"
_PATIENCE_S = 60.0
_EACH = 50
"""How many leave at a time in each of the four states."""
_FOREVER_MS = 3_600_000
_PARTS = 5
"""In which the rest is asked, so that one sees whether growth goes on."""
_WARM_REQUESTS = 4000
"""Fewer leave caches that fill."""


def _config(folder: Path, port: int, upstream: int, *, translate: bool) -> dict[str, object]:
    same = {"provider": "vllm", "base_url": f"http://127.0.0.1:{upstream}/v1"}
    backends = [
        {**same, "name": "m"},
        {**same, "name": "leavers"},
        {**same, "name": "narrow", "max_concurrent_requests": 1, "queue_size": 2 * _EACH},
    ]
    return {
        "server": {"port": port, "api_keys": [_KEY], "pass_through": not translate},
        "engine": {"enabled": False},
        "embeddings": {"enabled": False},
        "backends": backends,
        "records": {"file": str(folder / "records.jsonl"), "max_bytes": 1 << 20, "keep": 1},
        "logging": {"requests": False},
    }


@frozen(kw_only=True)
class Soaked:
    """The gateway under test."""

    port: int
    tree: Tree

    def metrics(self) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/metrics", headers={"authorization": f"Bearer {_KEY}"}
        )
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as reply:
            return str(reply.read().decode())

    async def counted(self, name: str, **labels: str) -> int:
        """The sum of a metric's samples that have these labels."""
        text = await asyncio.to_thread(self.metrics)
        total = 0.0
        for found, value in re.findall(rf"^{re.escape(name)}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
            if all(f'{label}="{wanted}"' in found for label, wanted in labels.items()):
                total += float(value)
        return int(total)

    async def at_work(self, model: str = "") -> tuple[int, int]:
        """How many calls run and how many wait."""
        which = {"model_name": model} if model else {}
        return (
            await self.counted("vllm:num_requests_running", **which),
            await self.counted("vllm:num_requests_waiting", **which),
        )

    async def until(self, model: str, running: int, waiting: int) -> None:
        end = time.monotonic() + _PATIENCE_S
        while (now := await self.at_work(model)) != (running, waiting):
            if time.monotonic() > end:
                sys.exit(f"{model or 'all'}: (running, waiting) is {now}, not {running, waiting}")
            await asyncio.sleep(0.02)

    async def leave(self, each: int) -> int:
        """So many leave in each state, and one that had kept the others in the queue."""
        never = Ask(model="leavers", think_ms=_FOREVER_MS)
        before = Ask(model="leavers", think_ms=_FOREVER_MS, stream=True)
        streaming = Ask(model="leavers", tokens=10_000, pause_ms=100, stream=True)
        narrow = Ask(model="narrow", think_ms=_FOREVER_MS, stream=True)
        queued = Ask(model="narrow")
        async with AsyncExitStack() as stay:
            crowds = []
            for ask, count in ((narrow, 1), *((a, each) for a in (never, before, streaming))):
                crowd = await stay.enter_async_context(Crowd(self.port, count, _KEY))
                crowd.send(ask)
                crowds.append(crowd)
            await self.until("narrow", 1, 0)
            late = await stay.enter_async_context(Crowd(self.port, each, _KEY))
            late.send(queued)
            await self.until("narrow", 1, each)
            await self.until("leavers", 3 * each, 0)
            while crowds[-1].answering() < each:
                await asyncio.sleep(0.01)
            # Whoever waits goes first: a place that is free would be theirs.
            await late.__aexit__()
            await self.until("narrow", 1, 0)
        await self.until("narrow", 0, 0)
        await self.until("leavers", 0, 0)
        return 4 * each + 1

    async def load(self, requests: int) -> None:
        async def ask(ask: Ask, callers: int, total: int) -> None:
            # Whoever is done leaves at once: connections that rest are closed after a while.
            async with Crowd(self.port, callers, _KEY) as crowd:
                await crowd.again_and_again(ask, total=total)

        streamed = requests // 4
        await asyncio.gather(
            ask(Ask(), 48, requests - streamed),
            ask(Ask(stream=True, pause_ms=1), 16, streamed),
        )

    async def soak(self, requests: int, disconnects: int) -> int:
        """Both at the same time; how many left."""
        loading = asyncio.create_task(self.load(requests))
        left = 0
        while left < disconnects and not (loading.done() and loading.exception()):
            left += await self.leave(_EACH)
        await loading
        return left

    async def rest(self, descriptors: int) -> int:
        """Wait until nothing runs and idle connections are closed; the descriptors then."""
        await self.until("", 0, 0)
        end = time.monotonic() + _PATIENCE_S / 6
        while (now := self.tree.descriptors()) > descriptors and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return now


async def _soak(options: argparse.Namespace, soaked: Soaked) -> list[str]:
    """What is wrong at the end."""
    at_first = await soaked.rest(sys.maxsize)
    begin = time.perf_counter()
    requests = max(options.requests // 10, min(options.requests // 2, _WARM_REQUESTS))
    disconnects = options.disconnects // 10
    left = await soaked.soak(requests, disconnects)
    warm_descriptors = await soaked.rest(at_first)
    warm_mb = soaked.tree.rss_mb()
    print(f"warm:   {warm_mb:.1f} MiB, {warm_descriptors} descriptors", flush=True)
    for part in range(_PARTS):
        asked = (options.requests - requests) // (_PARTS - part)
        left += await soaked.soak(asked, (options.disconnects - left) // (_PARTS - part))
        requests += asked
        descriptors = await soaked.rest(warm_descriptors)
        mb = soaked.tree.rss_mb()
        print(f"{requests:>7,}: {mb:.1f} MiB", flush=True)
    running, waiting = await soaked.at_work()
    answered = await soaked.counted("headrace_requests_total", error_type="")
    cancelled = await soaked.counted("headrace_requests_total", error_type="LLMCancelledError")
    ended = await soaked.counted("headrace_requests_total")
    print(
        f"end:    {mb:.1f} MiB ({mb - warm_mb:+.1f}), {descriptors} descriptors "
        f"({descriptors - warm_descriptors:+d}), {running} calls run, {waiting} wait"
    )
    print(
        f"calls:  {answered} answered, {cancelled} left, {ended - answered - cancelled} failed, "
        f"{time.perf_counter() - begin:.0f} s"
    )
    wrong = []
    if mb - warm_mb > options.growth_mib:
        wrong.append(f"memory has grown by {mb - warm_mb:.1f} MiB, at most {options.growth_mib:g}")
    if descriptors > warm_descriptors:
        wrong.append(f"{descriptors - warm_descriptors} descriptors are left over")
    if running or waiting:
        wrong.append(f"{running} calls run still, and {waiting} wait")
    told = (answered, cancelled, ended)
    true = (options.requests + 1, left, options.requests + 1 + left)  # the first one has started it
    if told != true:
        wrong.append(f"(answered, left, all) is {told} in the metrics and was {true}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--disconnects", type=int, default=10_000)
    parser.add_argument("--growth-mib", type=float, default=5.0)
    parser.add_argument("--translate", action="store_true", help="server.pass_through: false")
    options = parser.parse_args()
    mock_command = [sys.executable, "-m", "benchmarks._gateway_mock"]
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as name,
        started(mock_command, env=environment(MOCK_KEEP_S="1")) as mock,
    ):
        assert mock.stdout is not None
        folder, port = Path(name), free_port()
        path, log = folder / "gateway.yaml", folder / "log"
        upstream = int(mock.stdout.readline())
        config = _config(folder, port, upstream, translate=options.translate)
        path.write_text(yaml.safe_dump(config))
        start = "from headrace.cli.main import main; main()"
        command = [sys.executable, "-c", start, "serve", str(path)]
        with started(command, env=environment(), log=log) as process:

            async def run() -> list[str]:
                await first_answer(port, _KEY, process, log)
                return await _soak(options, Soaked(port=port, tree=Tree(root=process.pid)))

            wrong = uvloop.run(run())
        if wrong:
            sys.exit("\n".join([*wrong, log.read_text()[-2000:]]))


if __name__ == "__main__":
    main()
