"""The same profile twice: how far the second run's means lie from the first's, and what each run
said of its noise.

``python -m benchmarks profile_twice [MODEL] [OPTIONS OF headrace profile]``. MODEL is the one in the
box where none is named. Needs torch (``headrace[torch]``). It fails where both runs called
themselves clean and a mean that counts differs by more than a tenth; a run that calls itself noisy
promises nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from headrace.bench.profile.report.saved import read_file
from headrace.contracts.profile_report import ProfileReport

WITHIN = 0.1
COUNTS = 0.05
QUOTED = ("prefill", "decode")
"""Any other stage with less than ``COUNTS`` of the time is shown, and judged by nobody."""


def main() -> None:
    if find_spec("torch") is None:
        print("torch is not installed, so nothing can be profiled: pip install 'headrace[torch]'")
        return
    given = sys.argv[1:]
    model = given.pop(0) if given and not given[0].startswith("-") else "smollm2-135m-instruct"
    with tempfile.TemporaryDirectory() as folder:
        first, second = (run(model, Path(folder, name), given) for name in ("first", "second"))
    print(f"{first.model_name}, {first.dtype}, {first.environment.device_name}")
    for name, report in (("first", first), ("second", second)):
        print(f"  {name}: {report.noise.text}")
    apart = []
    print(f"  {'':<20} {'first':>10} {'second':>10} {'change':>8}")
    for name, before, after, counts in rows(first, second):
        change = after / before - 1
        mark = "" if counts else "  (under a twentieth of the time)"
        print(f"  {name:<20} {before:>10.2f} {after:>10.2f} {change:>+8.1%}{mark}")
        if counts and abs(change) > WITHIN:
            apart.append(f"{name} by {change:+.1%}")
    verdicts = {first.noise.verdict, second.noise.verdict}
    if verdicts != {"clean"}:
        print("  At least one run does not call itself clean, so nothing is promised.")
    elif apart:
        sys.exit(f"Both runs call themselves clean, and yet they differ: {', '.join(apart)}.")
    else:
        print(
            f"  Both runs call themselves clean, and every mean that counts is within {WITHIN:.0%}."
        )


def run(model: str, out: Path, more: list[str]) -> ProfileReport:
    """One profile, in a process of its own as a user's is."""
    start = "from headrace.cli.main import main; main()"
    command = [sys.executable, "-c", start, "profile", model, "--out", str(out), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    return read_file(out)


def rows(a: ProfileReport, b: ProfileReport) -> list[tuple[str, float, float, bool]]:
    """Each mean in ms: its name, the first run's, the second's, and whether it is judged."""
    found = []
    after = {stage.stage: stage for stage in b.stages}
    for stage in a.stages:
        other = after[stage.stage]
        counts = stage.stage in QUOTED or (stage.share or 0.0) >= COUNTS
        found.append((stage.stage, stage.time_ms.mean, other.time_ms.mean, counts))
    for name, one, two in (
        ("first token", a.ttft_ms, b.ttft_ms),
        ("each token after", a.tpot_ms, b.tpot_ms),
        ("whole", a.total_ms, b.total_ms),
    ):
        if one is not None and two is not None:
            found.append((name, one.mean, two.mean, True))
    return found


if __name__ == "__main__":
    main()
