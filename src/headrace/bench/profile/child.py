"""The process of one run: ``python -m headrace.bench.profile.child RUN_DIR``.

It takes what is asked for from the folder, tells there how it stands, and leaves the artifacts
there. SIGTERM asks it to stop: what it has by then is written and marked.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from attrs import evolve

from headrace.bench.profile.folders import RunFolder
from headrace.contracts.errors import LLMError
from headrace.contracts.profile_report import ProfileReport
from headrace.contracts.profiling import ProfilePhase, ProfileStatus


def main(path: Path) -> int:
    """Run the profile; the exit status is 0 where it is done."""
    stop = threading.Event()

    def ask_to_stop(_: int, __: FrameType | None) -> None:
        stop.set()

    # Before anything heavy: who cancels early is heard too.
    signal.signal(signal.SIGTERM, ask_to_stop)
    run = RunFolder(path)
    run.has_process(os.getpid())
    asked = run.asked()
    status = ProfileStatus(
        run_id=asked.run_id,
        state="running",
        artifacts_dir=str(path),
        phase="loading",
        device=asked.device,
        created_s=asked.created_s,
    )
    run.tell(status)

    def on_progress(phase: ProfilePhase, done: float, words: str) -> None:
        nonlocal status
        sys.stderr.write(f"{phase}: {words}\n")
        status = evolve(status, phase=phase, progress=min(1.0, max(0.0, done)))
        run.tell(status)

    try:
        from headrace.bench.profile.report.files import write_all
        from headrace.bench.profile.run import profile

        report: ProfileReport = profile(
            asked.request,
            on_progress=on_progress,
            stop=stop.is_set,
            artifacts_dir=path,
            run_id=asked.run_id,
        )
        run.tell(evolve(status, phase="report"))
        write_all(report, path)
    except LLMError as error:
        if stop.is_set():
            run.tell(evolve(status, state="cancelled"))
        else:
            run.tell(evolve(status, state="failed", error=str(error)))
        sys.stderr.write(f"{error}\n")
        return 1
    if not report.complete and stop.is_set():
        run.tell(evolve(status, state="cancelled", summary=report.summary))
        return 1
    if not report.complete:  # out of memory, say: what was timed by then is there
        run.tell(evolve(status, state="failed", error=report.ended, summary=report.summary))
        return 1
    run.tell(evolve(status, state="done", progress=1.0, summary=report.summary))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
