"""Senders on several machines, reached through a Ray cluster.

On each host an actor (``host``) starts the same process as ``--workers`` does and passes on what it
says. All begin at one instant: each host's monotonic clock is compared with ours before. What they
measured comes back as bytes and is added up as that of ``--workers`` is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path, PurePath
from time import monotonic
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from headrace.bench.load import run as running
from headrace.bench.load.beside import Beside
from headrace.bench.load.bounds import check
from headrace.bench.load.cluster import MISSING, Placed, place
from headrace.bench.load.crew import Heard, Job, drive_all, put_together, with_notes
from headrace.bench.load.drive import Stop
from headrace.bench.load.shares import Driven, Share, split
from headrace.bench.load.target import Target, target_of
from headrace.contracts.convert import to_json
from headrace.contracts.errors import LLMInvalidRequestError, LLMProviderError
from headrace.contracts.load import LoadPlan, Prompts, Replay
from headrace.net.ray_cluster import joined

if TYPE_CHECKING:
    from headrace.contracts.load_report import LoadReport, Moment

_BEGIN_IN_S = 0.1
_ROUND_TRIPS = 21
_UNSURE_S = 0.001
_ANSWER_WITHIN_S = 5.0


def load_by_hosts(
    plan: LoadPlan,
    hosts: int,
    *,
    address: str | None = None,
    on_moment: Callable[[Moment], None] | None = None,
    stop: Stop | None = None,
) -> LoadReport:
    """Carry out ``plan`` from ``hosts`` machines, with ``plan.workers`` processes on each.

    ``address`` is the Ray cluster's; without it ``RAY_ADDRESS`` counts, and without that a Ray of our
    own is started on this machine and stopped afterwards. There is one host a node as long as there
    are as many. Raises an LLMError that names the host, where one cannot do its part.
    """
    check(plan)
    stop = stop or Stop()
    shares = [Share(part, hosts * plan.workers) for part in range(hosts * plan.workers)]
    for share in shares:
        split(plan, share, by="hosts", each=plan.workers)
    plan = _for_elsewhere(plan, target_of(plan))
    with (
        running.interrupts_ask(stop),
        joined(address, len(shares), param="hosts", missing=MISSING) as ray,
        running.runner() as runner,
    ):
        return runner.run(_load(plan, shares, ray, on_moment, stop))


def _for_elsewhere(plan: LoadPlan, target: Target) -> LoadPlan:
    """The plan with whole paths, and with the name of the key that is sent, so that each has one."""

    changed: dict[str, Any] = {}
    for name in ("ca_file", "records"):
        path: PurePath | None = getattr(plan, name)
        if path is not None:
            changed[name] = Path(path).absolute()
    for name in ("workload", "arrivals"):
        part = getattr(plan, name)
        if isinstance(part, Prompts | Replay):
            changed[name] = evolve(part, path=Path(part.path).absolute())
    if plan.tokenizer is not None and Path(plan.tokenizer).is_file():
        changed["tokenizer"] = str(Path(plan.tokenizer).absolute())
    if target.has_key:
        changed["key_env"] = target.key_env
    return evolve(plan, **changed)


async def _load(
    plan: LoadPlan,
    shares: Sequence[Share],
    ray: Any,
    on_moment: Callable[[Moment], None] | None,
    stop: Stop,
) -> LoadReport:
    run_id = running.new_run_id()
    target = target_of(plan)
    found = await running.look_at(plan, target, stop)
    if found is None:
        return running.report_of(run_id, running.nothing_driven(plan))
    hosts = len(shares) // plan.workers
    placed = await place(ray, hosts, plan.workers, lambda: stop.level > 0)
    if placed is None:
        return running.report_of(run_id, running.nothing_driven(plan))
    plan = evolve(plan, model=found.model)
    beside = Beside(plan, target)
    senders = [_Sender(ray, each) for each in placed]
    jobs = [to_json(Job(plan=plan, share=share, run_id=run_id)) for share in shares]
    listening = [
        asyncio.create_task(sender.live(job)) for sender, job in zip(senders, jobs, strict=True)
    ]
    wall_less_monotonic = time.time() - monotonic()

    async def instant() -> float:
        for sender in senders:
            await asyncio.to_thread(sender.compare_clocks)
        worst = max(sender.clock.round_trip_s for sender in senders)
        return monotonic() + _BEGIN_IN_S + 4 * worst

    try:
        began = await drive_all(senders, beside, instant=instant, on_moment=on_moment, stop=stop)
    finally:
        server, notes = await beside.end()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    whole = put_together(plan, senders)
    if whole is None:
        raise LLMProviderError(
            f"none of the {len(senders)} senders told anything: " + "; ".join(_deaths(senders)),
            transient=False,
        )
    notes = (*_deaths(senders), *_doubtful_clocks(senders), *notes)
    whole = with_notes(whole, found.notes + _places(senders), notes)
    return running.report_of(
        run_id, _as_seen_here(whole, senders, wall_less_monotonic + began), server
    )


def _as_seen_here(driven: Driven, senders: Sequence[_Sender], started: float) -> Driven:
    """With our time of day, not that of a host whose clock may be wrong, and all hosts' memory."""
    memory = {sender.node: sender.memory_bytes for sender in senders}
    facts = evolve(driven.facts, memory_bytes=sum(memory.values()) or None)
    return evolve(driven, started=started, facts=facts)


@frozen
class _Clock:
    """A host's monotonic clock: what it shows beyond ours, and how long asking it took."""

    ahead_s: float = 0.0
    round_trip_s: float = 0.0


class _Sender:
    """A sender on some host: its actor, and what came from it."""

    def __init__(self, ray: Any, placed: Placed) -> None:
        self._ray, self._actor = ray, placed.actor
        self.node, self.name = placed.node, placed.name
        self.heard = Heard()
        self.clock = _Clock()
        self.memory_bytes = 0
        self.last_words = "it was no longer waited for"
        self._told: list[Any] = []
        """What is told to an actor is cancelled where nobody holds on to the answer."""

    async def live(self, job: bytes) -> None:
        """Have its process started, and hear it until it ends."""
        try:
            about = await self._actor.start.remote(job)
            self.memory_bytes = about["memory_bytes"]
            if about["version"] != version("headrace"):
                self._wrong(
                    f"its headrace is {about['version']}, and this one is {version('headrace')}; "
                    "install the same on all"
                )
                return
            await self._listen()
        except self._ray.exceptions.RayActorError as error:
            if "ModuleNotFoundError" in str(error) and not self.heard.ready.is_set():
                self._wrong(f"headrace is not installed there ({MISSING})")
            self.last_words = _told_by(error)
        except self._ray.exceptions.RayError as error:
            self.last_words = _told_by(error)
        finally:
            self.heard.end()

    async def _listen(self) -> None:
        over = False
        while not over:
            frames, over = await self._actor.news.remote()
            for frame in frames:
                self.heard.hear(frame)
                if (error := self.heard.error) is not None:
                    # Often it is that one alone: it lacks the key, or a file.
                    self.heard.error = type(error)(
                        f"on host {self.name}: {error.message}", status=error.status
                    )
                    return
        if self.heard.driven is None:
            self.last_words = await self._actor.last_words.remote()

    def _wrong(self, why: str) -> None:
        self.heard.error = LLMInvalidRequestError(f"on host {self.name}: {why}", param="hosts")

    def compare_clocks(self) -> None:
        """Ask what time it is there; the quickest answer says it best."""
        tries = []
        try:
            for _ in range(_ROUND_TRIPS):
                before = monotonic()
                there = self._ray.get(self._actor.clock.remote(), timeout=_ANSWER_WITHIN_S)
                after = monotonic()
                tries.append(_Clock(there - (before + after) / 2, after - before))
        except self._ray.exceptions.RayError:
            return  # it is dead, or as good as that: who listens to it finds out too
        self.clock = min(tries, key=lambda each: each.round_trip_s)

    def begin(self, at: float) -> None:
        """Begin at that instant of our clock."""
        if not self.heard.over:
            self._told.append(self._actor.begin.remote(at + self.clock.ahead_s))

    def stop(self) -> None:
        """Send no more; said a second time, end at once."""
        if not self.heard.over:
            self._told.append(self._actor.stop.remote())


def _told_by(error: Exception) -> str:
    """The telling line of one of Ray's long errors: what was raised there comes last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return repr(error)
    return lines[-1] if "Traceback" in str(error) or lines[0].startswith("ray::") else lines[0]


def _deaths(senders: Sequence[_Sender]) -> Iterator[str]:
    for sender in senders:
        if sender.heard.driven is None:
            yield f"the sender on host {sender.name} was lost: {sender.last_words}"


def _doubtful_clocks(senders: Sequence[_Sender]) -> Iterator[str]:
    for sender in senders:
        unsure = sender.clock.round_trip_s / 2
        if unsure > _UNSURE_S:
            yield (
                f"host {sender.name} may have begun up to {unsure * 1e3:.1f} ms before or after the"
                " others: asking for its clock takes twice that. Its own figures are not touched"
            )


def _places(senders: Sequence[_Sender]) -> tuple[str, ...]:
    nodes = {sender.node: sender.name for sender in senders}
    machines = "1 machine" if len(nodes) == 1 else f"{len(nodes)} machines"
    return (f"{len(senders)} senders on {machines}: {', '.join(nodes.values())}",)
