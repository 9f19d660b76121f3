"""Load generators before servers whose every delay is known: who tells the truth, at what cost.

    python -m benchmarks load [--streams N ...] [--peers FOLDER] [--server exact|mock] [--freeze]

The server has a core of its own, the generator another. The truth is a first token after 50 ms and
a further one every 10 ms, 100 in all, in a closed loop. Two servers: ``exact``, in C, and
``headrace mock``; each says how late its own writes were, so that the judge is judged too. Printed are
medians over ``--repeats``, with the range: what each generator says, how far that is from the truth,
its CPU seconds per 1,000 tokens from its first request on, the most memory it held (all its processes; shared pages count once
for each), and the seconds from its start to its first request.

With ``--freeze`` the server stops for 1 s in every 5, at 40 requests a second, which 20 may be in
flight of: the truth is what a caller sees who asks at the intended time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from attrs import frozen

from ._load_peers import Generator, Load, Seen, ours, peers
from ._processes import Tree, started

TTFT_MS, ITL_MS, TOKENS = 50.0, 10.0, 100
_PATIENCE_S = 600.0


@frozen(kw_only=True)
class Run:
    seen: Seen
    cpu_s: float
    rss_mb: float
    first_request_s: float | None


class Server:
    """A running server, and what it prints."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self._lines: list[bytes] = []
        self.port = int(process.stdout.readline().split(b":")[-1].split(b"/")[0].strip(b' "}\n'))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)

    def first_post_at(self) -> float | None:
        """When the first POST had been read, in seconds of the monotonic clock; the mock does not say."""
        told = self._lines[0].strip() if self._lines else b""
        return int(told) / 1e9 if told.isdigit() else None

    def lateness(self) -> str:
        self.process.terminate()
        self.process.wait(10)
        time.sleep(0.1)
        return self._lines[-1].decode().strip() if self._lines else "?"


@contextmanager
def exact(folder: Path, core: int, freeze: tuple[int, int] | None, tokens: int) -> Iterator[Server]:
    program = folder / "exact_server"
    if not program.exists():
        source = Path(__file__).with_name("_exact_server.c")
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    delays = [str(int(TTFT_MS * 1000)), str(int(ITL_MS * 1000)), str(tokens)]
    frozen_for = [str(part) for part in freeze or ()]
    with started([str(program), *delays, *frozen_for], cores=[core]) as process:
        yield Server(process)


@contextmanager
def mock(folder: Path, core: int, freeze: tuple[int, int] | None, tokens: int) -> Iterator[Server]:
    command = [sys.executable, "-m", "headrace", "mock", "--port", "0", "--exact"]
    command += ["--ttft", f"{TTFT_MS}ms", "--itl", f"{ITL_MS}ms", "--tokens", str(tokens)]
    if freeze:
        command += ["--freeze", f"{freeze[0]}ms/{freeze[1]}ms"]
    with started(command, cores=[core]) as process:
        yield Server(process)


SERVERS = {"exact": exact, "mock": mock}


def run(generator: Generator, load: Load, core: int, server: Server) -> Run:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said = (folder / "said").open("wb")
        here = os.sched_getaffinity(0)
        os.sched_setaffinity(0, [core])
        try:
            begin = time.monotonic()
            process = subprocess.Popen(
                generator.command(load, folder),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "VLLM_NO_USAGE_STATS": "1"},
            )
        finally:
            os.sched_setaffinity(0, here)
        tree, most, before = Tree(root=process.pid), 0.0, None
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - begin > _PATIENCE_S:
                process.kill()
            with contextlib.suppress(OSError):  # one of them ended while we looked
                most = max(most, tree.rss_mb())
                if before is None and server.first_post_at() is not None:
                    before = tree.cpu_s()
            time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 3, 4):
            text = (folder / "said").read_text(errors="replace")[-3000:]
            sys.exit(f"{generator.name} ended with {process.returncode}:\n{text}")
        first = server.first_post_at()
        return Run(
            seen=generator.read(folder),
            cpu_s=usage.ru_utime + usage.ru_stime - (before or 0.0),
            rss_mb=most,
            first_request_s=None if first is None else first - begin,
        )


def _span(values: list[float], digits: int = 2) -> str:
    low, high = min(values), max(values)
    spread = f" ({low:.{digits}f}-{high:.{digits}f})" if len(values) > 1 else ""
    return f"{median(values):.{digits}f}{spread}"


def _row(name: str, streams: int, runs: list[Run], tokens: int) -> str:
    def of(what: str) -> list[float]:
        return [float(getattr(r.seen, what)) for r in runs]

    worst = max(
        abs(median(of(what)) / true - 1)
        for what, true in (
            ("ttft_p50", TTFT_MS),
            ("ttft_p99", TTFT_MS),
            ("itl_p50", ITL_MS),
            ("itl_p99", ITL_MS),
        )
    )
    first = [r.first_request_s for r in runs if r.first_request_s is not None]
    verdicts = ",".join(sorted({r.seen.verdict for r in runs} - {""}))
    return (
        f"{name:24} {streams:5}  {_span(of('ttft_p50')):22} {_span(of('ttft_p99')):22} "
        f"{_span(of('itl_p50')):20} {_span(of('itl_p99')):22} {worst:6.1%}  "
        f"{_span([r.cpu_s * 1000 / tokens for r in runs], 4):24} {_span([r.rss_mb for r in runs], 0):14} "
        f"{_span(first) if first else '-':18} {runs[0].seen.itl_is} {verdicts}"
    )


def truth(options: argparse.Namespace, generators: list[Generator], folder: Path) -> None:
    print(
        f"{'generator':24} {'str.':>5}  {'TTFT p50 ms':22} {'TTFT p99 ms':22} {'ITL p50 ms':20} "
        f"{'ITL p99 ms':22} {'off by':6}  {'CPU s / 1k tokens':24} {'RSS MB':14} first request s"
    )
    for streams in options.streams:
        requests = streams * options.answers
        for generator in generators:
            runs, late = [], []
            for _ in range(options.repeats):
                with SERVERS[options.server](folder, options.cores[1], None, TOKENS) as server:
                    load = Load(port=server.port, streams=streams, requests=requests, tokens=TOKENS)
                    runs.append(run(generator, load, options.cores[0], server))
                    late.append(server.lateness())
            print(_row(generator.name, streams, runs, requests * TOKENS), flush=True)
            if options.lateness:
                print(f"    the server's writes, count p50 p99 max us: {'; '.join(late)}")


def freeze(options: argparse.Namespace, generators: list[Generator], folder: Path) -> None:
    rate, seconds, cap = 40.0, 30.0, 20
    print(f"server frozen for 1 s in every 5, {rate:.0f} requests/s for {seconds:.0f} s, 10 tokens")
    for capped in (None, cap):
        how = f"at most {capped} in flight" if capped else "open"
        for generator in generators:
            with SERVERS[options.server](folder, options.cores[1], (1000, 5000), 10) as server:
                load = Load(
                    port=server.port,
                    streams=cap,
                    requests=int(rate * seconds),
                    tokens=10,
                    rate=rate,
                    cap=capped,
                )
                seen = run(generator, load, options.cores[0], server).seen
            print(
                f"{generator.name:24} {how:22} TTFT p50 {seen.ttft_p50:8.1f} p99 {seen.ttft_p99:8.1f} ms",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks load", description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[32, 64, 256])
    parser.add_argument("--answers", type=int, default=6, help="requests per stream")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--server", choices=SERVERS, default="exact")
    parser.add_argument("--peers", type=Path, help="folder of the peers' virtual environments")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1], help="generator's, server's")
    parser.add_argument(
        "--ramp",
        type=float,
        default=0.0,
        help="seconds over which our callers begin; 0: all at once",
    )
    parser.add_argument("--only", nargs="+", help="generators whose name begins so")
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--lateness", action="store_true", help="how late the server's writes were")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one for the server, one for the generator")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generators = [ours(ramp_s=options.ramp), ours(kernel=False, ramp_s=options.ramp)]
        if options.peers:
            generators += peers(options.peers, folder / "words")
        if options.only:
            generators = [g for g in generators if g.name.startswith(tuple(options.only))]
        (freeze if options.freeze else truth)(options, generators, folder)


if __name__ == "__main__":
    main()
