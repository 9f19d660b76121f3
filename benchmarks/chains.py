"""What two typed steps over many rows cost: ``headrace run`` and its peers against one mock.

    python -m benchmarks chains [--rows N] [--repeats N] [--more-rows N] [--again]
                                [--peers FOLDER] [--make] [--peer-rows N] [--only NAME ...]

The mock answers each request after ``--delay`` with an object that meets the schema it was asked
for; two steps at 64 requests at once make 1,600 rows a second at 20 ms, whoever asks. Ours is the
whole command: it reads JSONL, keeps every answer in its journal and writes JSONL, its start is
counted. A peer's start is not: what is measured is its work alone, from its first row to its last.

``--again`` runs ours a second time over what is done. ``--more-rows`` runs it over so many rows
too, for the memory. Peers are looked for in ``--peers FOLDER``, in a virtual environment of their
name; ``--make`` makes those that are not there. They get ``--peer-rows``, since they are slow; each
figure is by the row. Printed are medians over the repeats, in brackets the least and the greatest;
those who are measured take turns within each repeat. CPU is user and system time of all processes
of who is measured, without the mock's; peak memory is that of the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from attrs import frozen

from ._processes import Tree, started

_PATIENCE_S = 1800.0
_CHAIN = """
engines:
  - {{name: mock, backend: openai, model: gpt-4o-mini, endpoint: "{base}/v1", api_key: none}}
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
    "rows_s": ("rows/s", 1.0),
    "cpu_ms": ("CPU ms a row", 1.0),
    "peak_mb": ("peak MB", 1.0),
    "asked": ("requests a row", 1.0),
}


@frozen(kw_only=True)
class Took:
    """What one run took."""

    rows_s: float
    cpu_ms: float
    peak_mb: float
    asked: float


@frozen(kw_only=True)
class Mock:
    """The running mock."""

    base: str
    pid: int

    def answered(self) -> int:
        """How many requests it has answered."""
        with urllib.request.urlopen(f"{self.base}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        return sum(int(line.split()[-1]) for line in lines if "requests_total{" in line)


@contextmanager
def mock(delay: str, core: int, extra: list[str]) -> Iterator[Mock]:
    command = [sys.executable, "-m", "headrace", "mock", "--port", "0", "--ttft", delay]
    with started([*command, "--itl", "0", *extra], cores=[core]) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        port = int(line.split(":")[-1].split("/")[0].strip(' "}\n'))
        yield Mock(base=f"http://127.0.0.1:{port}", pid=process.pid)


def write_rows(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for n in range(rows):
            text = f"Message {n}: the lamp on my desk does not light up any more, what can I do?"
            file.write(json.dumps({"id": n, "text": text}) + "\n")


def ours(folder: Path, at: Mock, rows: int, concurrency: int, core: int, *, fresh: bool) -> Took:
    """One run of the command over ``rows``."""
    source, out = folder / f"rows-{rows}.jsonl", folder / f"out-{rows}.jsonl"
    if not source.exists():
        write_rows(source, rows)
    if fresh:
        shutil.rmtree(f"{out}.run", ignore_errors=True)
    chain = folder / "chain.yaml"
    chain.write_text(_CHAIN.format(base=at.base))
    command = [sys.executable, "-m", "headrace", "run", str(chain), str(source), "-o", str(out)]
    before, began = at.answered(), time.monotonic()
    log = folder / "said"
    with started(
        [*command, "--concurrency", str(concurrency), "--no-progress"], cores=[core], log=log
    ) as process:
        tree, peak = Tree(root=process.pid), 0.0
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
    del tree
    written = sum(1 for _ in out.open())
    if written != rows:
        sys.exit(f"{written} of {rows} rows were written")
    return Took(
        rows_s=rows / took_s,
        cpu_ms=(usage.ru_utime + usage.ru_stime) * 1e3 / rows,
        peak_mb=peak,
        asked=(at.answered() - before) / rows,
    )


def shown(values: list[float]) -> str:
    middle, least, most = median(values), min(values), max(values)
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2 if middle >= 1 else 3
    return f"{middle:.{digits}f} [{least:.{digits}f}-{most:.{digits}f}]"


def table(found: dict[str, list[Took]]) -> None:
    """Print the numbers, and beneath them each peer's as a multiple of ours."""
    print(f"{'':24}" + "".join(f"{title:>24}" for title, _ in _COLUMNS.values()))
    for name, runs in found.items():
        cells = (shown([getattr(r, column) for r in runs]) for column in _COLUMNS)
        print(f"{name:24}" + "".join(f"{cell:>24}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks chains", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", default="20ms")
    parser.add_argument(
        "--cores", type=int, nargs=2, default=[0, 1], help="of who asks, the mock's"
    )
    options = parser.parse_args()
    found: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with mock(options.delay, options.cores[1], []) as at:
            for _ in range(options.repeats):
                took = ours(
                    folder, at, options.rows, options.concurrency, options.cores[0], fresh=True
                )
                found.setdefault("headrace", []).append(took)
            took = ours(
                folder, at, options.rows, options.concurrency, options.cores[0], fresh=False
            )
            found.setdefault("headrace, run again", []).append(took)
    table(found)


if __name__ == "__main__":
    main()
