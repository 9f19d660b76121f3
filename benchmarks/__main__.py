"""Run the measurements named on the command line, or all of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def main() -> None:
    chosen = sys.argv[1:2] or NAMES
    unknown = set(chosen) - set(NAMES)
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    for name in chosen:
        print(f"== {name}")
        sys.argv = [name, *sys.argv[2:]]
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
