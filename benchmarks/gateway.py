"""What a gateway costs: ours, nginx, LiteLLM's proxy and vllm-router before one mock.

    python -m benchmarks gateway [--only NAME ...] [--figures NAME ...] [--repeats N] [--seconds S]
                                 [--litellm PYTHON] [--vllm-router PYTHON] [--requests N]
                                 [--json FILE]

nginx is measured where it is on the PATH (Debian: apt-get install nginx). The other two are
measured in the environments whose pythons are named; these are the versions that we measured:

    python -m venv /tmp/litellm && /tmp/litellm/bin/pip install 'litellm[proxy]==1.108.7'
    python -m venv /tmp/router && /tmp/router/bin/pip install vllm-router==0.1.17

Every gateway runs on one core, the mock upstream and the callers share another one, all over
HTTP/1.1 with connections kept, with a chat request of 330 bytes. ``direct`` is the same load
without a gateway: what the mock and the callers can do. Each repeat starts every gateway afresh, in
turns; shown is the median over the repeats, in brackets the least and the greatest. A sample
with an answer that is not whole counts for nothing, and fails the run at its end. CPU is that of the gateway's processes, as the kernel counts it.

Ours runs with all on that it has: an API key, retries, breaker, metrics, the page's history, a
record of every call in a file; the mock is a vLLM to it, which it asks for whole answers where the
caller wants them. LiteLLM checks a key and may retry; vllm-router retries and has a
breaker; nginx only hands on. Nobody writes a log line a request.

Of 500 streams at once even ``direct`` begins later than the 20 ms that the mock thinks: it and the
callers need their core for them. What a gateway adds is what is over that, and may come out a
little below nothing where it spreads the work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from attrs import define, field, frozen

from ._gateway_load import Ask, Crowd, WrongAnswerError, first_answer
from ._gateway_peers import KEY, PEERS, Peer, Place, python_of
from ._processes import Tree, environment, free_port, started

_MOCK = "benchmarks._gateway_mock"
_DIRECT = "direct"
Sample = dict[str, float]


@define(kw_only=True)
class Bench:
    """One gateway that runs, or none (``direct``), and what the figures need of it."""

    options: argparse.Namespace
    port: int
    tree: Tree | None
    direct: Sample = field(factory=dict)
    """What this repeat measured without a gateway."""

    def callers(self, count: int) -> Crowd:
        return Crowd(self.port, count, KEY)

    @contextmanager
    def cpu(self, told: Sample) -> Iterator[None]:
        """Puts the gateway's CPU seconds of the block into ``told["cpu_s"]``."""
        if self.tree is None:
            yield
            told["cpu_s"] = 0.0
            return
        before, pids = self.tree.cpu_s(), self.tree.pids()
        yield
        told["cpu_s"] = self.tree.cpu_s() - before
        if pids != self.tree.pids():
            raise WrongAnswerError("the gateway's processes changed while they were measured")


async def rps(bench: Bench) -> Sample:
    """Whole answers, as many as it can, 64 callers: requests a CPU second and a second."""
    told: Sample = {}
    async with bench.callers(64) as crowd:
        await crowd.again_and_again(Ask(), seconds=bench.options.seconds / 4)
        with bench.cpu(told):
            answers, took = await crowd.again_and_again(Ask(), seconds=bench.options.seconds)
    found = {"rps_wall": answers / took}
    return found | {"rps_cpu": answers / told["cpu_s"]} if told["cpu_s"] else found


async def chunk(bench: Bench) -> Sample:
    """64 streams at a time, a chunk each 5 ms: CPU of a chunk.

    Streams of 129 chunks, less as many streams of one chunk, whose cost is shown apart.
    """
    long, short = Ask(tokens=129, stream=True, pause_ms=5), Ask(tokens=1, stream=True)
    streams = bench.options.streams
    of_long: Sample = {}
    of_short: Sample = {}
    async with bench.callers(64) as crowd:
        await crowd.again_and_again(Ask(tokens=16, stream=True), total=128)
        with bench.cpu(of_long):
            await crowd.again_and_again(long, total=streams)
        with bench.cpu(of_short):
            await crowd.again_and_again(short, total=streams)
    if bench.tree is None:
        return {}
    each = (of_long["cpu_s"] - of_short["cpu_s"]) / (streams * 128)
    return {"chunk_us": each * 1e6, "stream_us": of_short["cpu_s"] / streams * 1e6}


async def added(bench: Bench) -> Sample:
    """An upstream that thinks for 20 ms, a moderate load: what the gateway adds."""
    ask = Ask(think_ms=20)
    rate, seconds = bench.options.rate, bench.options.seconds
    async with bench.callers(64) as crowd:
        await crowd.paced(ask, rate=rate, seconds=seconds / 4)
        took = sorted(await crowd.paced(ask, rate=rate, seconds=seconds))
    p50, p99 = (took[int(len(took) * q)] * 1e3 for q in (0.5, 0.99))
    if bench.tree is None:
        return {"p50_ms": p50, "p99_ms": p99}
    return {
        "added_p50_ms": p50 - bench.direct["p50_ms"],
        "added_p99_ms": p99 - bench.direct["p99_ms"],
    }


async def ttft(bench: Bench) -> Sample:
    """500 streams at once, connections made and used before: time to the first text."""
    ask = Ask(tokens=8, stream=True, think_ms=20, pause_ms=20)
    async with bench.callers(bench.options.at_once) as crowd:
        for _ in range(2):
            await crowd.at_once(ask)
        firsts = [first for _ in range(3) for first in await crowd.at_once(ask)]
    p50 = statistics.median(firsts) * 1e3
    if bench.tree is None:
        return {"ttft_ms": p50}
    return {"ttft_ms": p50, "ttft_excess_ms": p50 - bench.direct["ttft_ms"]}


async def memory(bench: Bench) -> Sample:
    """Memory of all its processes, before and after so many whole answers."""
    if bench.tree is None:
        return {}
    before = bench.tree.rss_mb()
    async with bench.callers(64) as crowd:
        await crowd.again_and_again(Ask(), total=bench.options.requests)
    return {"rss_before_mb": before, "rss_mb": bench.tree.rss_mb()}


@frozen(kw_only=True)
class Figure:
    """A measurement, and the columns in which it is shown."""

    measure: Callable[[Bench], Awaitable[Sample]]
    columns: dict[str, str]
    repeated: bool = True


FIGURES = {
    "rps": Figure(measure=rps, columns={"rps_cpu": "req / CPU s", "rps_wall": "req / s"}),
    "chunk": Figure(
        measure=chunk, columns={"chunk_us": "chunk CPU us", "stream_us": "stream of 1, CPU us"}
    ),
    "added": Figure(
        measure=added,
        columns={
            "p50_ms": "p50 ms",
            "p99_ms": "p99 ms",
            "added_p50_ms": "added p50 ms",
            "added_p99_ms": "added p99 ms",
        },
    ),
    "ttft": Figure(
        measure=ttft, columns={"ttft_ms": "TTFT p50 ms", "ttft_excess_ms": "over direct, ms"}
    ),
    # Last, for it fills the process with what the others should not find there; and long.
    "memory": Figure(
        measure=memory,
        columns={"rss_before_mb": "MB before", "rss_mb": "MB after"},
        repeated=False,
    ),
}
_START = {"start_s": "cold start s"}


async def _measure(
    bench: Bench, name: str, first: bool, note: Callable[[str, Sample], None]
) -> None:
    for figure in bench.options.figures:
        if FIGURES[figure].repeated or first:
            try:
                note(name, await FIGURES[figure].measure(bench))
            except WrongAnswerError as wrong:
                bench.options.wrong.append(f"{name}, {figure}: {wrong}")
                print(f"  {bench.options.wrong[-1]}", flush=True)


async def _repeat(
    options: argparse.Namespace,
    upstream: int,
    peers: list[Peer],
    first: bool,
    note: Callable[[str, Sample], None],
) -> None:
    """Each figure of each gateway once."""
    direct: Sample = {}

    def note_direct(name: str, sample: Sample) -> None:
        direct.update(sample)
        note(name, sample)

    alone = Bench(options=options, port=upstream, tree=None)
    await _measure(alone, _DIRECT, first, note_direct)
    for peer in peers:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            place = Place(
                folder=Path(folder),
                port=free_port(),
                upstream=upstream,
                python=python_of(peer, options.pythons),
            )
            log = place.folder / "log"
            command = peer.command(place)
            begin = time.perf_counter()
            with started(
                command,
                cores={options.gateway_core},
                env=environment(**peer.environment),
                log=log,
            ) as process:
                await first_answer(place.port, KEY, process, log)
                note(peer.name, {"start_s": time.perf_counter() - begin})
                bench = Bench(
                    options=options,
                    port=place.port,
                    tree=Tree(root=process.pid),
                    direct=direct,
                )
                await _measure(bench, peer.name, first, note)


def shown(samples: list[float]) -> str:
    """Median, least and greatest."""
    middle = statistics.median(samples)
    digits = 0 if middle >= 1000 else 1 if middle >= 10 else 2
    if len(samples) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} [{min(samples):,.{digits}f}-{max(samples):,.{digits}f}]"


def table(samples: dict[str, dict[str, list[float]]], columns: dict[str, str]) -> None:
    """The columns of one figure, and beneath them each gateway's as a multiple of ours."""
    print("\n" + f"{'':20}" + "".join(f"{title:>26}" for title in columns.values()))
    for name, found in samples.items():
        cells = (shown(found[column]) if column in found else "-" for column in columns)
        print(f"{name:20}" + "".join(f"{cell:>26}" for cell in cells))
    ours = samples.get("headrace", {})
    for name, found in samples.items():
        if name in ("headrace", _DIRECT) or not ours:
            continue
        ratios = (
            f"{statistics.median(found[column]) / statistics.median(ours[column]):.3g}"
            if column in found and column in ours
            else "-"
            for column in columns
        )
        print(f"{name + ' / ours':20}" + "".join(f"{ratio:>26}" for ratio in ratios))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [peer.name for peer in PEERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument(
        "--figures",
        nargs="+",
        choices=FIGURES,
        default=list(FIGURES),
        metavar="NAME",
        help=f"of {', '.join(FIGURES)}",
    )
    for peer in PEERS:
        if peer.option:
            parser.add_argument(peer.option, metavar="PYTHON", dest=peer.name)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load, for a sample")
    parser.add_argument("--streams", type=int, default=192, help="for a sample of chunk")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second, for added")
    parser.add_argument("--at-once", type=int, default=500, help="streams at once, for ttft")
    parser.add_argument("--requests", type=int, default=100_000, help="for memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples, and conditions")
    options = parser.parse_args()
    options.wrong = []
    options.figures = [name for name in FIGURES if name in options.figures]
    options.pythons = {peer.name: getattr(options, peer.name, None) for peer in PEERS}
    return options


def _conditions(versions: dict[str, str]) -> dict[str, object]:
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": f"{model[0] if model else platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions,
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this needs two cores: one for the gateway, one for the load")
    options.gateway_core, load_core = cores[0], cores[1]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peers = []
    for peer in PEERS:
        if peer.name not in options.only:
            continue
        why = peer.missing(options.pythons[peer.name])
        if why:
            print(f"{peer.name}: {why}")
        else:
            peers.append(peer)
    versions = {peer.name: peer.version(python_of(peer, options.pythons)) for peer in peers}
    conditions = _conditions(versions)
    print(json.dumps(conditions))
    samples: dict[str, dict[str, list[float]]] = {_DIRECT: {}, **{p.name: {} for p in peers}}

    def note(name: str, sample: Sample) -> None:
        for column, value in sample.items():
            samples[name].setdefault(column, []).append(value)

    os.sched_setaffinity(0, {load_core})
    command = [sys.executable, "-m", _MOCK]
    with started(command, cores={load_core}) as mock:
        assert mock.stdout is not None
        upstream = int(mock.stdout.readline())
        for number in range(options.repeats):
            turn = number % len(peers) if peers else 0
            order = peers[turn:] + peers[:turn]
            uvloop.run(_repeat(options, upstream, order, number == 0, note))
            print(f"repeat {number + 1} of {options.repeats} done", flush=True)
    for columns in (_START, *(FIGURES[name].columns for name in options.figures)):
        table(samples, columns)
    if options.json:
        options.json.write_text(json.dumps({"conditions": conditions, "samples": samples}))
    if options.wrong:
        sys.exit("\n".join(["wrong answers, left out above:", *options.wrong]))


if __name__ == "__main__":
    main()
