"""What two typed steps over many rows cost: ``headrace run`` and its peers against one mock.

    python -m benchmarks chains [--rows N] [--repeats N] [--many-rows N]
                                [--peers FOLDER [--make] [--peer-rows N] [--only NAME ...]]

The mock answers each request after ``--delay`` with an object that meets the schema it was asked
for. Two steps at 64 requests at once make 1,600 rows a second at 20 ms at most, whoever asks.

Ours is the whole command, its start included: it reads JSONL, keeps every answer in its journal
and writes JSONL. ``streamed`` is the same at a server that we do not know, which is asked for a
stream; ``run again`` is the command once more over what is done; ``--many-rows`` has it run over so
many rows too, for the memory. Of a peer only its work is measured, from its first row to its last.
Each is used as its documentation has it for many rows, with the provider's JSON Schema mode.

Peers are looked for in ``--peers FOLDER``, in a virtual environment of their name; ``--make`` makes
those that are not there (none of them needs PyTorch). They get ``--peer-rows``, since they are
slow. Printed are medians over the repeats with the least and the greatest in brackets; within a
repeat all take turns. CPU is user and system time of who asks, in all its processes; the mock runs
on a core of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from attrs import frozen

from ._processes import environment, started

PEERS = {
    "any_llm": ("any-llm-sdk[openai]",),
    "curator": ("bespokelabs-curator",),
    "pydantic_ai": ("pydantic-ai-slim[openai]",),
    "langchain": ("langchain-openai",),
    "instructor": ("instructor",),
    "distilabel": ("distilabel[openai,instructor]",),
}
_PEER = Path(__file__).with_name("_chain_peer.py")
_PATIENCE_S = 1800.0
_PEER_PATIENCE_S = 300.0
_CHAIN = """
engines:
  - {{name: mock, backend: {backend}, model: gpt-4o-mini, endpoint: "{base}/v1", api_key: none}}
models:
  Topic:
    type: object
    properties:
      topic: {{type: string}}
      urgent: {{type: boolean}}
    required: [topic, urgent]
  Reply:
    type: object
    properties:
      reply: {{type: string}}
      score: {{type: integer, minimum: 1, maximum: 5}}
    required: [reply, score]
steps:
  - {{id: sort, engine: mock, user: "What is this message about? {{{{ text }}}}", output: Topic}}
  - id: answer
    engine: mock
    user: "Answer this message about {{{{ topic }}}}: {{{{ row.text }}}}"
    output: Reply
"""
_COLUMNS = {
    "rows_s": "rows/s",
    "cpu_ms": "CPU ms a row",
    "peak_mb": "peak MB",
    "asked": "requests a row",
}


@frozen(kw_only=True)
class Took:
    """What one run took."""

    rows: int
    rows_s: float
    cpu_ms: float
    peak_mb: float
    asked: float


@frozen(kw_only=True)
class Bench:
    """Where it happens: a folder, a mock, and who asks on which core."""

    folder: Path
    base: str
    concurrency: int
    core: int

    def answered(self) -> int:
        """How many requests the mock has answered."""
        with urllib.request.urlopen(f"{self.base}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        return sum(int(line.split()[-1]) for line in lines if "/v1/chat/completions" in line)

    def rows(self, count: int) -> Path:
        """A file of so many rows."""
        path = self.folder / f"rows-{count}.jsonl"
        if not path.exists():
            text = "the lamp on my desk does not light up any more, what can I do?"
            with path.open("w") as file:
                for n in range(count):
                    file.write(json.dumps({"id": n, "text": f"Message {n}: {text}"}) + "\n")
        return path


@contextmanager
def mock(delay: str, core: int) -> Iterator[str]:
    """A mock at work; where it is."""
    command = [sys.executable, "-m", "headrace", "mock", "--port", "0", "--ttft", delay]
    with started([*command, "--itl", "0"], cores=[core]) as process:
        assert process.stdout is not None
        said = process.stdout.readline().decode()
        yield f"http://127.0.0.1:{int(said.split(':')[-1].split('/')[0].strip())}"


def ours(bench: Bench, rows: int, *, backend: str = "openai", again: bool = False) -> Took:
    """One run of the command over ``rows``; ``again`` over what is done already."""
    out = bench.folder / f"{backend}-{rows}.jsonl"
    if not again:
        shutil.rmtree(f"{out}.run", ignore_errors=True)
    chain = bench.folder / f"{backend}.yaml"
    chain.write_text(_CHAIN.format(base=bench.base, backend=backend))
    command = [sys.executable, "-m", "headrace", "run", chain, bench.rows(rows), "-o", out]
    command += ["--concurrency", bench.concurrency, "--no-progress"]
    log, before, began, peak = bench.folder / "said", bench.answered(), time.monotonic(), 0.0
    with started([*map(str, command)], cores=[bench.core], env=environment(), log=log) as process:
        while True:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int((status.partition("VmHWM:")[2].split() or ["0"])[0]) / 1024)
            pid, code, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - began > _PATIENCE_S:
                process.kill()
            time.sleep(0.02)
        took_s = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        sys.exit(f"headrace run ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    with out.open("rb") as file:
        written = sum(1 for _ in file)
    if written != rows:
        sys.exit(f"headrace run wrote {written} of {rows} rows")
    return Took(
        rows=rows,
        rows_s=rows / took_s,
        cpu_ms=(usage.ru_utime + usage.ru_stime) * 1e3 / rows,
        peak_mb=peak,
        asked=(bench.answered() - before) / rows,
    )


def theirs(bench: Bench, name: str, python: Path, rows: int) -> Took | None:
    """One run of a peer; None, with the reason told, where it could not."""
    plan = {"base": f"{bench.base}/v1", "rows": rows, "concurrency": bench.concurrency}
    before, log, here = bench.answered(), bench.folder / name, os.sched_getaffinity(0)
    os.sched_setaffinity(0, [bench.core])  # a child begins where its parent is
    try:
        with log.open("wb") as said:
            done = subprocess.run(
                [python, _PEER, name, json.dumps(plan)],
                stdout=said,
                stderr=said,
                timeout=_PEER_PATIENCE_S,
                env=environment(),
                check=False,
            )
    except subprocess.TimeoutExpired:
        print(f"{name}: not ready with {rows} rows in {_PEER_PATIENCE_S:g} s", flush=True)
        return None
    finally:
        os.sched_setaffinity(0, here)
    lines = log.read_text(errors="replace").splitlines()
    if done.returncode or not lines:
        print(f"{name}: ended with {done.returncode}: {' | '.join(lines[-3:])[-500:]}", flush=True)
        return None
    took = json.loads(next(line for line in reversed(lines) if line.startswith('{"s"')))
    if took["made"] != rows:
        print(f"{name}: {took['made']} of {rows} rows came out", flush=True)
    return Took(
        rows=rows,
        rows_s=rows / took["s"],
        cpu_ms=took["cpu_s"] * 1e3 / rows,
        peak_mb=took["peak_mb"],
        asked=(bench.answered() - before) / rows,
    )


def pythons(folder: Path | None, *, make: bool) -> dict[str, Path]:
    """The interpreters of those peers that are there."""
    found: dict[str, Path] = {}
    if folder is None:
        return found
    for name, packages in PEERS.items():
        home = folder / name
        python = home / "bin" / "python"
        if not python.exists() and make:
            venv.create(home, with_pip=True)
            install = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", *packages]
            made = subprocess.run(install, capture_output=True, text=True, check=False)
            if made.returncode:
                print(f"{name}: left out, {made.stderr.strip()[-300:]}", flush=True)
                shutil.rmtree(home)
                continue
        if python.exists():
            found[name] = python
        else:
            print(f"{name}: left out, there is no environment of that name in {folder}")
    return found


def shown(values: list[float]) -> str:
    """Median, least and greatest."""
    middle, least, most = median(values), min(values), max(values)
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 3
    spread = f" [{least:.{digits}f}-{most:.{digits}f}]" if len(values) > 1 else ""
    return f"{middle:.{digits}f}{spread}"


def table(found: dict[str, list[Took]]) -> None:
    """Print the numbers, and beneath them each peer's as a multiple of ours."""
    print(f"{'':22}{'rows':>8}" + "".join(f"{title:>24}" for title in _COLUMNS.values()))
    for name, runs in found.items():
        cells = (shown([getattr(r, column) for r in runs]) for column in _COLUMNS)
        print(f"{name:22}{runs[0].rows:8}" + "".join(f"{cell:>24}" for cell in cells))
    print("times ours")
    ours_ = {c: median([getattr(r, c) for r in found["headrace"]]) for c in _COLUMNS}
    for name, runs in found.items():
        if name in PEERS:
            ratios = (median([getattr(r, c) for r in runs]) / ours_[c] for c in _COLUMNS)
            print(f"{name:30}" + "".join(f"{ratio:>24.2f}" for ratio in ratios))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks chains", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--many-rows", type=int, default=0, help="e.g. 200000, once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", default="20ms")
    parser.add_argument(
        "--cores", type=int, nargs=2, default=[0, 1], help="of who asks, the mock's"
    )
    parser.add_argument("--peers", type=Path, help="folder of the peers' virtual environments")
    parser.add_argument("--make", action="store_true", help="make those that are not there")
    parser.add_argument("--peer-rows", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=list(PEERS), help="of the peers")
    options = parser.parse_args()
    asked = options.only or list(PEERS)
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one for the mock, one for who asks")
    peers = {k: v for k, v in pythons(options.peers, make=options.make).items() if k in asked}
    found: dict[str, list[Took]] = {}
    core, mock_core = options.cores
    with tempfile.TemporaryDirectory() as name, mock(options.delay, mock_core) as base:
        bench = Bench(folder=Path(name), base=base, concurrency=options.concurrency, core=core)
        for _ in range(options.repeats):
            found.setdefault("headrace", []).append(ours(bench, options.rows))
            again = ours(bench, options.rows, again=True)
            found.setdefault("headrace, run again", []).append(again)
            streamed = ours(bench, options.rows, backend="openai-compatible")
            found.setdefault("headrace, streamed", []).append(streamed)
            for peer, python in list(peers.items()):
                took = theirs(bench, peer, python, options.peer_rows)
                if took is None:
                    del peers[peer]  # it would not do better the next time
                else:
                    found.setdefault(peer, []).append(took)
        if options.many_rows:
            found["headrace, many rows"] = [ours(bench, options.many_rows)]
    table(found)


if __name__ == "__main__":
    main()
