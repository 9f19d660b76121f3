"""What a call costs the caller: our client, the openai SDK, any-llm and litellm on one mock.

    python -m benchmarks client [--any-llm PYTHON] [--litellm PYTHON] [--openai PYTHON]
                                [--repeats N] [--calls N] [--streams N] [--concurrency N]
                                [--loop asyncio|uvloop]

A library that is not installed beside us is measured in the environment whose python is named, and
left out otherwise. To make one (neither needs more, least of all PyTorch):

    python -m venv /tmp/litellm && /tmp/litellm/bin/pip install litellm uvloop
    python -m venv /tmp/any-llm && /tmp/any-llm/bin/pip install 'any-llm-sdk[openai]' uvloop

Each number is the median over the repeats of fresh processes, with the least and the greatest in
brackets; the libraries take turns within each repeat. CPU is user and system time of the client's
process alone, all on the same event loop: asyncio's own, or uvloop, which our synchronous client uses. ``import`` is the whole process from its start to a client
that is ready to be called, the interpreter included; ``call`` is one call answered whole with
``--tokens`` tokens, at so many calls at once; ``chunk`` is a stream of 512 tokens, all its costs
divided by their number. Every library is imported from bytecode, as pip leaves it: one process of
each goes before, unmeasured, to write what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_PEER = Path(__file__).parent / "_client_peer.py"
_MOCK = Path(__file__).parent / "_openai_mock.py"
_MODULES = {"headrace": "headrace", "openai": "openai", "any_llm": "any_llm", "litellm": "litellm"}
_COLUMNS = {
    "import_s": ("import CPU ms", 1e3),
    "import_mb": ("import MB", 1.0),
    "call": ("call CPU ms", 1e3),
    "chunk": ("chunk CPU us", 1e6),
    "peak_mb": ("peak MB", 1.0),
}
_STREAM_TOKENS = 512
_LIMIT_S = 600


def run(python: str, name: str, plan: dict[str, object]) -> dict[str, float]:
    """What one fresh process measures."""
    command = [python, str(_PEER), name, json.dumps(plan)]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=env
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def pythons(given: dict[str, str | None]) -> dict[str, str]:
    """Which interpreter measures which library."""
    found = {}
    for name, module in _MODULES.items():
        python = given.get(name)
        if python is None and find_spec(module) is None:
            print(f"{name}: left out, not installed and no interpreter named that has it")
        else:
            found[name] = python or sys.executable
    return found


def shown(samples: list[float], scale: float) -> str:
    """Median, least and greatest."""
    middle, least, most = (scale * f(samples) for f in (statistics.median, min, max))
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} [{least:.{digits}f}-{most:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("openai", "any-llm", "litellm"):
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"an interpreter that has {name}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--calls", type=int, default=640, help="per repeat")
    parser.add_argument("--streams", type=int, default=64, help="per repeat")
    parser.add_argument("--tokens", type=int, default=16, help="of a whole answer")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    options = parser.parse_args()
    chosen = pythons(
        {"openai": options.openai, "any_llm": options.any_llm, "litellm": options.litellm}
    )
    samples: dict[str, dict[str, list[float]]] = {
        name: {column: [] for column in _COLUMNS} for name in (*chosen, "nothing")
    }
    work = [
        ("call", options.calls, options.tokens, False),
        ("chunk", options.streams, _STREAM_TOKENS, True),
    ]
    with subprocess.Popen([sys.executable, str(_MOCK)], stdout=subprocess.PIPE, text=True) as mock:
        try:
            assert mock.stdout is not None
            base = f"http://127.0.0.1:{int(mock.stdout.readline())}/v1"
            plan = {"base": base, "concurrency": options.concurrency, "loop": options.loop}
            for name, python in chosen.items():
                run(python, name, plan)
            for _ in range(options.repeats):
                for name, python in chosen.items():
                    found = run(python, name, plan) | run(python, name, {**plan, "work": work})
                    for column in _COLUMNS:
                        samples[name][column].append(found[column])
                bare = run(sys.executable, "nothing", plan)
                for column, value in bare.items():
                    samples["nothing"][column].append(value)
        finally:
            mock.terminate()
    table(samples)


def table(samples: dict[str, dict[str, list[float]]]) -> None:
    """Print the numbers, and beneath them each library's as a multiple of ours."""
    print(f"{'':10}" + "".join(f"{title:>22}" for title, _ in _COLUMNS.values()))
    for name, columns in samples.items():
        cells = (
            shown(columns[column], scale) if columns[column] else "-"
            for column, (_, scale) in _COLUMNS.items()
        )
        print(f"{name:10}" + "".join(f"{cell:>22}" for cell in cells))
    print("times ours")
    ours = samples["headrace"]
    for name, columns in samples.items():
        if name in ("headrace", "nothing"):
            continue
        ratios = (
            f"{statistics.median(columns[column]) / statistics.median(ours[column]):.1f}"
            for column in _COLUMNS
        )
        print(f"{name:10}" + "".join(f"{ratio:>22}" for ratio in ratios))


if __name__ == "__main__":
    main()
