"""Chains before a server that fails: what is lost, what it costs, how soon all is as before.

    python -m benchmarks chain_faults [--rows N] [--storm-rows N] [--only faults|storm]

``faults``: two typed steps over ``--rows`` rows, 64 at once, answers after 20 ms; 5% of requests are
refused (429, ``Retry-After: 1``), 2% answered with truncated JSON, 1% reset, and 0.5% never answered.
Printed are rows lost, null or out of order, and how many more requests were made than the least
possible: two a row, and one for each fault. At most 1% more is wanted, and no such row.

``storm``: the same chain, no faults but 20 s in which 30% are refused. Printed is the speed before,
in the storm and from 5 s after its end on, in answers a second; 90% of that before is wanted. Its
answers take ``--storm-took`` seconds, so that 64 at once are no matter of processor time: what a busy
machine takes from it would else be taken for what the storm did.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from ._failing_server import SLICE_S
from ._processes import environment, free_port, started

SHARES = {"refused": 0.05, "truncated": 0.02, "reset": 0.01, "hung": 0.005}
STORM = (10.0, 30.0, 0.30)
SETTLED_S = 5.0
CHAIN = """
engines:
  - {{name: small, backend: openai-compatible, model: m, endpoint: "http://127.0.0.1:{port}/v1"}}
models:
  Word: {{type: object, properties: {{word: {{type: string}}}}, required: [word]}}
steps:
  - {{id: first, engine: small, user: "one {{{{ text }}}}", output: Word}}
  - {{id: second, engine: small, user: "two {{{{ row.id }}}} {{{{ word }}}}", output: Word}}
"""


def run(rows: int, told: dict[str, Any], folder: Path, seconds: float | None) -> dict[str, Any]:
    """What the server counted, and ``took_s``; the run is asked to stop after ``seconds``."""
    port = free_port()
    (folder / "chain.yaml").write_text(CHAIN.format(port=port))
    with (folder / "in.jsonl").open("w") as file:
        file.writelines(f'{{"id": {i}, "text": "row {i}"}}\n' for i in range(rows))
    server = [sys.executable, "-m", "benchmarks._failing_server", json.dumps(told | {"port": port})]
    command = [sys.executable, "-m", "headrace", "run", "chain.yaml", "in.jsonl"]
    with started(server, env=environment()) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline() == b"ready\n"
        began = time.monotonic()
        chain = subprocess.Popen(
            [*command, "-o", "out.jsonl", "--no-progress"], cwd=folder, env=environment()
        )
        try:
            chain.wait(seconds)
        except subprocess.TimeoutExpired:
            chain.send_signal(signal.SIGINT)
            chain.wait()
        took_s = time.monotonic() - began
        serving.terminate()
        counted: dict[str, Any] = json.loads(serving.stdout.readline())
    return counted | {"took_s": took_s, "status": chain.returncode}


def faults(rows: int) -> bool:
    with tempfile.TemporaryDirectory() as name:
        counted = run(rows, {"shares": SHARES, "retry_after_s": 1}, Path(name), None)
        out = Path(name) / "out.jsonl"
        lines = [json.loads(line) for line in out.open()] if out.exists() else []
    met = counted["fates"]
    asked = sum(met.values())
    least = 2 * rows + sum(met.get(fault, 0) for fault in SHARES)
    lost = rows - len({line["id"] for line in lines})
    empty = sum(1 for line in lines if not line["output"])
    disordered = sum(1 for place, line in enumerate(lines) if line["id"] != place)
    print(
        f"faults: {rows} rows in {counted['took_s']:.0f} s; met {met}\n"
        f"  lost {lost}, null {empty}, out of order {disordered}\n"
        f"  {asked} requests, {least} at least: {100 * (asked / least - 1):+.3f}%"
    )
    return lost == empty == disordered == 0 and asked <= 1.01 * least


def storm(rows: int, answer_s: float) -> bool:
    begin, end, _ = STORM
    until = end + SETTLED_S + 10
    with tempfile.TemporaryDirectory() as name:
        told = {"storm": STORM, "retry_after_s": 1, "took_s": answer_s}
        counted = run(rows, told, Path(name), until + 5)
    a_second = [count / SLICE_S for count in counted["answered"]]

    def speed(since: float, to: float) -> float:
        return median(a_second[int(since / SLICE_S) : int(to / SLICE_S)] or [0.0])

    before, within = speed(begin / 2, begin), speed(begin + 2, end)
    after = speed(end + SETTLED_S, until)
    back = next(
        (
            i * SLICE_S - end
            for i in range(int(end / SLICE_S), len(a_second))
            if a_second[i] >= 0.9 * before
        ),
        None,
    )
    print(
        f"storm: {before:.0f} answers/s before, {within:.0f} in it, {after:.0f} from {SETTLED_S:g} s "
        f"after it on: {100 * after / max(before, 1):.0f}%; first half second at 90%: "
        f"{'never' if back is None else f'{back:g} s after its end'}; "
        f"{counted['fates'].get('refused', 0)} refused"
    )
    return after >= 0.9 * before


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=5000)
    options.add_argument("--storm-rows", type=int, default=60_000)
    options.add_argument("--storm-took", type=float, default=0.2)
    options.add_argument("--only", choices=("faults", "storm"))
    given = options.parse_args()
    well = True
    if given.only != "storm":
        well &= faults(given.rows)
    if given.only != "faults":
        well &= storm(given.storm_rows, given.storm_took)
    if not well:
        sys.exit("not as wanted")


if __name__ == "__main__":
    main()
