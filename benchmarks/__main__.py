"""Run the measurement named on the command line, with its options, or all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def main() -> None:
    chosen = sys.argv[1:2] or NAMES
    unknown = set(chosen) - set(NAMES)
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    failed = []
    for name in chosen:
        print(f"== {name}", flush=True)
        # Each in a process of its own: what one leaves behind must not weigh on the next.
        command = [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[2:]]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
