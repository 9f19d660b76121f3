"""``run.json`` in a run's folder: what runs there, how far it is, and what it has cost.

It is written anew every second while the run goes on, so that another process can tell. It holds
names and counts, and nothing that was asked or answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from attrs import asdict, field, frozen
from msgspec import DecodeError, json

from headrace.chains.spending import Spent, plain_spent, spent_of, total
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

if TYPE_CHECKING:
    from headrace.chains.running import Run

NAME = "run.json"
_FORMAT = 1
_WRITES_EVERY_S = 1.0

State: TypeAlias = Literal["running", "finished", "stopped", "interrupted", "failed", "killed"]
Why: TypeAlias = Literal["interrupt", "max_cost", "left", "unwritable"]


@frozen(kw_only=True)
class Attempt:
    """One process's work on a run. ``spent`` is by step, ``usd_at_most`` what may have been paid
    where it is not known of each call; ``reason`` says why it stopped, or how it failed."""

    state: State
    started: str
    ended: str | None = None
    seconds: float = 0.0
    pid: int
    reason: str | None = None
    standing: Mapping[str, Any] = field(factory=dict)
    spent: Mapping[str, Spent] = field(factory=dict)
    usd_at_most: Decimal = Decimal(0)


@frozen(kw_only=True)
class Earlier:
    """All attempts before the last one together."""

    attempts: int = 0
    spent: Mapping[str, Spent] = field(factory=dict)
    usd_at_most: Decimal = Decimal(0)
    seconds: float = 0.0

    def and_then(self, attempt: Attempt) -> Earlier:
        """These and ``attempt``."""
        spent = {step: total({"": each}) for step, each in self.spent.items()}
        for step, each in attempt.spent.items():
            spent.setdefault(step, Spent()).add(each)
        return Earlier(
            attempts=self.attempts + 1,
            spent=spent,
            usd_at_most=self.usd_at_most + attempt.usd_at_most,
            seconds=self.seconds + attempt.seconds,
        )


@frozen(kw_only=True)
class RunNote:
    """A run: its chain, ``steps`` with the engine of each, and what came of it until now.

    ``nodes`` are all nodes of the chain, in their order. ``rows`` is how many the input has, where
    somebody counted them.
    """

    folder: Path
    chain: str
    mark: str
    nodes: tuple[str, ...]
    steps: Mapping[str, str]
    versions: Mapping[str, str]
    input: str | None = None
    output: str | None = None
    rows: int | None = None
    now: Attempt
    earlier: Earlier = field(factory=Earlier)


class Notes:
    """Keeps the note of ``run`` while it runs, in a folder that nobody else works in."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._path = run.settings.run_dir / NAME
        self._began, self._started = time.monotonic(), _now()
        self._task: asyncio.Task[None] | None = None
        self.earlier = _earlier_of(self._path)

    async def __aenter__(self) -> Self:
        self._write("running")
        self._task = asyncio.create_task(self._write_on())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        [ended] = await asyncio.gather(self._task, return_exceptions=True)
        run = self._run
        if kind is None:
            self._write("stopped" if run.stopped else "finished", run.why_stopped)
        elif issubclass(kind, GeneratorExit):
            self._write("stopped", "left")
        elif issubclass(kind, asyncio.CancelledError | KeyboardInterrupt):
            self._write("interrupted", run.why_stopped)
        else:
            # Where nothing can be written any more, what happened is the error to hear of.
            with contextlib.suppress(LLMUnavailableError):
                self._write("failed", kind.__name__)
        if kind is None and isinstance(ended, LLMUnavailableError):
            raise ended

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(_WRITES_EVERY_S)
            try:
                self._write("running")
            except LLMUnavailableError:
                self._run.stop("unwritable")
                raise

    def _write(self, state: State, reason: str | None = None) -> None:
        run = self._run
        settings, spent = run.settings, run.spending.by_step
        ended = None if state == "running" else _now()
        note = {
            "format": _FORMAT,
            "chain": run.chain.name,
            "mark": run.chain.whole_mark.hex(),
            "nodes": [node.id for node in run.chain.nodes],
            "steps": run.chain.steps(),
            "versions": _versions(),
            "input": settings.input,
            "output": settings.output,
            "rows": run.rows_known,
            "now": {
                "state": state,
                "reason": reason,
                "started": self._started,
                "ended": ended,
                "seconds": round(time.monotonic() - self._began, 3),
                "pid": os.getpid(),
                "standing": asdict(run.standing),
                "spent": {step: plain_spent(each) for step, each in spent.items()},
                "usd_at_most": f"{run.usd_at_most:f}",
            },
            "earlier": {
                "attempts": self.earlier.attempts,
                "seconds": round(self.earlier.seconds, 3),
                "spent": {step: plain_spent(each) for step, each in self.earlier.spent.items()},
                "usd_at_most": f"{self.earlier.usd_at_most:f}",
            },
        }
        part = self._path.with_name(f"{NAME}.part")
        try:
            part.write_bytes(json.format(json.encode(note), indent=1) + b"\n")
            part.replace(self._path)
        except OSError as error:
            raise LLMUnavailableError(
                f"{str(self._path)!r} cannot be written ({error.strerror}): what was done before is "
                "kept; run it again when there is room"
            ) from error


def read_run(folder: Path) -> RunNote:
    """The note of the run in ``folder``; its state is ``killed`` where nobody works on it any more.

    Raises LLMInvalidRequestError where there is none that we can read.
    """
    path = folder / NAME
    try:
        note = json.decode(path.read_bytes())
    except FileNotFoundError as error:
        raise LLMInvalidRequestError(
            f"there is no run in {str(folder)!r}: it has no {NAME}", param="dir"
        ) from error
    except (OSError, DecodeError) as error:
        raise LLMInvalidRequestError(
            f"{str(path)!r} cannot be read: {error}", param="dir"
        ) from error
    if not isinstance(note, dict) or note.get("format") != _FORMAT:
        found = note.get("format") if isinstance(note, dict) else None
        raise LLMInvalidRequestError(
            f"{str(path)!r} has format {found!r}, must be {_FORMAT}: it is another version's",
            param="dir",
        )
    now, earlier = note["now"], note["earlier"]
    state: State = now["state"]
    if state == "running" and not is_held(folder):
        state = "killed"
    return RunNote(
        folder=folder,
        chain=note["chain"],
        mark=note["mark"],
        nodes=tuple(note["nodes"]),
        steps=note["steps"],
        versions=note["versions"],
        input=note["input"],
        output=note["output"],
        rows=note["rows"],
        now=Attempt(
            state=state,
            reason=now["reason"],
            started=now["started"],
            ended=now["ended"],
            seconds=now["seconds"],
            pid=now["pid"],
            standing=now["standing"],
            spent={step: spent_of(each) for step, each in now["spent"].items()},
            usd_at_most=Decimal(now["usd_at_most"]),
        ),
        earlier=Earlier(
            attempts=earlier["attempts"],
            seconds=earlier["seconds"],
            spent={step: spent_of(each) for step, each in earlier["spent"].items()},
            usd_at_most=Decimal(earlier["usd_at_most"]),
        ),
    )


def runs_under(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders of all runs in ``folders`` or below, in the order of their paths."""
    for folder in folders:
        if not folder.is_dir():
            raise LLMInvalidRequestError(f"{str(folder)!r} is no folder", param="dir")
        for at, below, files in os.walk(folder):
            # What begins with a dot is some program's own: environments and caches, often large.
            below[:] = sorted(each for each in below if not each.startswith("."))
            if NAME in files and "journal.sqlite" in files:
                below.clear()
                yield Path(at)


def by_engine(steps: Mapping[str, str], by_step: Mapping[str, Spent]) -> dict[str, Spent]:
    """What was spent at each engine; ``steps`` tells which one a step asks."""
    found: dict[str, Spent] = {}
    for step, each in by_step.items():
        found.setdefault(steps.get(step, "?"), Spent()).add(each)
    return found


def _earlier_of(path: Path) -> Earlier:
    """What was spent in this folder before."""
    if not path.exists():
        return Earlier()
    note = read_run(path.parent)
    return note.earlier.and_then(note.now)


def is_held(folder: Path) -> bool:
    """Whether a process works on the run there."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"headrace": version("headrace"), "python": platform.python_version()}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
