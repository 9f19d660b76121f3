"""The supervisor's side of its workers: started, heard, told, replaced when they die, ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Coroutine, Iterator
from itertools import count
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMUnavailableError
from headrace.contracts.snapshot import LaneSnapshot, WorkerSnapshot
from headrace.gateway.app import Gateway
from headrace.gateway.build import Own
from headrace.gateway.overlay import NO_OVERLAY, Overlay
from headrace.gateway.routes import Route
from headrace.gateway.share import Share, processes
from headrace.gateway.source import Source
from headrace.gateway.workers.messages import (
    Begin,
    Drain,
    Failed,
    FromWorker,
    Lay,
    Model,
    Ready,
    Report,
    Reread,
    Stands,
    Tell,
)
from headrace.net.frames import FrameLink, FrameReader
from headrace.numbers.live import Gauges
from headrace.numbers.parts import add_calls, add_history
from headrace.traffic.counts_parts import add_endpoint

log = logging.getLogger(__name__)

_START_S, _STOP_S = 60.0, 5.0
_REPORT_S = 0.5
_REREAD_S = 10.0
_LAST_WORDS_S = 2.0
_RESTART_FIRST_S, _RESTART_MOST_S = 0.1, 10.0
_LONG_LIFE_S = 60.0
_NONE: Gauges = ({}, {}, {})


@frozen(kw_only=True)
class Port:
    """Where callers come in.

    Each worker listens on ``host`` and ``number`` by a socket of its own, unless there is an
    ``inherited`` one that listens for all.
    """

    host: str
    number: int
    inherited: socket.socket | None = None


class Crew:
    """``size`` workers on one port, who hand on to ``socket_path`` what is not theirs to answer.

    They begin with ``text``, which stands in the file of ``source``. What they count is counted in
    the gateway's tally; what one that died had told stays there.
    """

    def __init__(
        self, *, size: int, port: Port, socket_path: str, source: Source, text: str | None
    ) -> None:
        self.port, self.socket_path, self.source, self.text = port, socket_path, source, text
        self.processes = processes(size)
        self.rest = Share(size, self.processes)
        """The supervisor's own share of the remote backends."""
        self.overlay = NO_OVERLAY
        self.draining = False
        self.numbers = count(1)
        self.gateway: Gateway
        self.own: Own
        self._places = [Place(self, number) for number in range(size)]

    @property
    def living(self) -> int:
        """How many processes there are."""
        return sum(place.pid is not None for place in self._places)

    async def start(self, gateway: Gateway, own: Own) -> None:
        """Start them all and wait until they listen; raises LLMUnavailableError where one fails."""
        self.gateway, self.own = gateway, own
        await _all(place.start() for place in self._places)

    async def gather(self) -> None:
        """Have all that they counted counted here; one that does not tell at once is not waited for."""
        answers = [place.ask_report() for place in self._ready()]
        if answers:
            _, late = await asyncio.wait(answers, timeout=_REPORT_S)
            for answer in late:
                answer.cancel()

    async def reread(self, text: str) -> None:
        """Have them all stand on ``text``, and those that come after them."""
        self.text = text
        await _all(place.reread(text) for place in self._ready())

    async def lay(self, overlay: Overlay) -> None:
        """Have ``overlay`` lie over the configuration of them all, and of those that come after."""
        self.overlay = overlay
        await _all(place.lay(overlay) for place in self._ready())

    def lanes(self) -> Iterator[LaneSnapshot]:
        """How their lanes stand."""
        for place in self._places:
            yield from place.lanes

    def workers(self) -> tuple[WorkerSnapshot, ...]:
        """Those who live."""
        told = [place.snapshot() for place in self._places]
        return tuple(worker for worker in told if worker is not None)

    def drain(self) -> None:
        """Have them finish what is in flight and end; nobody takes their places any more."""
        self.draining = True
        for place in self._places:
            place.say(Drain())

    async def aclose(self) -> None:
        """End them, after 5 s by force."""
        self.drain()
        await _all(place.stop() for place in self._places)

    def _ready(self) -> list[Place]:
        return [place for place in self._places if place.is_ready]


class Place:
    """One worker's place: the process that is in it now, and after its death the next."""

    def __init__(self, crew: Crew, number: int) -> None:
        self._crew, self._number = crew, number
        self.pid: int | None = None
        self.is_ready = False
        self.lanes: list[LaneSnapshot] = []
        self._restarts = 0
        self._report: Report | None = None
        self._gauges = _NONE
        self._process: asyncio.subprocess.Process | None = None
        self._link: FrameLink[FromWorker] | None = None
        self._lost = asyncio.Event()
        self._begun: asyncio.Future[None] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._keeper: asyncio.Task[None] | None = None

    # What the crew asks of it.

    async def start(self) -> None:
        """Start a process and wait until it is ready."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"worker {self._number}")

    async def stop(self) -> None:
        """Wait for the process' end, and force it where it does not come."""
        if self._keeper is not None and self.pid is not None:
            await asyncio.wait({self._keeper}, timeout=_STOP_S)
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._end()

    def say(self, message: object) -> None:
        """Send ``message``, where somebody is there to hear it."""
        if self._link is not None:
            self._link.send(message)

    def ask_report(self) -> asyncio.Future[Any]:
        """Have it report; done once that was counted, or there is nobody to report any more."""
        return self._ask(number := next(self._crew.numbers), Tell(number))

    async def reread(self, text: str) -> None:
        """Have it stand on ``text``; what keeps it from that is logged."""
        number = next(self._crew.numbers)
        await self._have_it_stand(number, Reread(number, text))

    async def lay(self, overlay: Overlay) -> None:
        """Have ``overlay`` lie over that; what keeps it from that is logged."""
        number = next(self._crew.numbers)
        await self._have_it_stand(number, Lay(number, overlay.to_plain()))

    async def _have_it_stand(self, number: int, question: object) -> None:
        answer = self._ask(number, question)
        try:
            async with asyncio.timeout(_REREAD_S):
                stands = await answer
        except TimeoutError:
            stands = Stands(number, f"no answer within {_REREAD_S:g} s")
        if stands is not None and stands.error is not None:
            log.error("worker %s stays on the configuration before: %s", self.pid, stands.error)

    def snapshot(self) -> WorkerSnapshot | None:
        """The process, where there is one."""
        if self.pid is None:
            return None
        told = self._report
        return WorkerSnapshot(
            pid=self.pid,
            requests=0 if told is None else told.requests,
            rss_bytes=None if told is None else told.rss_bytes,
            restarts=self._restarts,
        )

    # One process after the other.

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = 0.0
        while True:
            assert self._process
            pid, born = self.pid, loop.time()
            code = await self._process.wait()
            # What it said before its end may still be on its way.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._lost.wait()
            self._gone()
            if self._is_last():
                return
            if loop.time() - born > _LONG_LIFE_S:
                wait_s = 0.0
            log.error("worker %s died (exit status %s); the others go on", pid, code)
            while True:
                await asyncio.sleep(wait_s)
                wait_s = min(max(wait_s * 2, _RESTART_FIRST_S), _RESTART_MOST_S)
                if self._is_last():
                    return
                try:
                    await self._spawn()
                except LLMUnavailableError as failure:
                    log.error("%s; trying again in %.1f s", failure, wait_s)
                    continue
                break
            self._restarts += 1
            log.warning("worker %s has taken the place of %s", self.pid, pid)

    def _is_last(self) -> bool:
        """Whether nobody comes after the process that has ended."""
        return self._crew.draining

    async def _spawn(self) -> None:
        crew, text, overlay = self._crew, self._crew.text, self._crew.overlay
        inherited = crew.port.inherited
        ours, theirs = socket.socketpair()
        with ours, theirs:
            fds = [theirs.fileno(), *(() if inherited is None else (inherited.fileno(),))]
            # A session of its own: Ctrl-C in the terminal must reach us, not it, so that what is
            # in flight can still be finished. Its log lines go where ours go.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headrace.gateway.workers.worker", str(fds[0])),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=fds,
                start_new_session=True,
            )
            self.pid = self._process.pid
            loop = asyncio.get_running_loop()
            self._begun = begun = loop.create_future()
            self._lost = lost = asyncio.Event()
            link: FrameLink[FromWorker] = FrameLink(
                FrameReader(FromWorker), self._heard, lambda error: self._link_lost(lost, error)
            )
            self._link = link
            await loop.create_unix_connection(lambda: link, sock=ours.dup())
        link.send(self._begin(text))
        try:
            async with asyncio.timeout(_START_S):
                await begun
        except TimeoutError:
            await self._end()
            raise LLMUnavailableError(f"a worker did not begin within {_START_S:g} s") from None
        except BaseException:
            await self._end()
            raise
        self.is_ready = True
        if crew.draining:
            self.say(Drain())
            return
        if crew.text is not None and crew.text != text:
            await self.reread(crew.text)
        if crew.overlay is not overlay:
            await self.lay(crew.overlay)

    def _begin(self, text: str | None) -> Begin:
        crew, source = self._crew, self._crew.source
        inherited = crew.port.inherited
        return Begin(
            path=None if source.path is None else str(source.path),
            text=text,
            overrides=[(*place, value) for place, value in source.overrides.items()],
            place=self._number,
            processes=crew.processes,
            chat=_model(crew.own.chat),
            embeddings=_model(crew.own.embeddings),
            audio=_model(crew.own.audio),
            socket_path=crew.socket_path,
            host=crew.port.host,
            port=crew.port.number,
            listener=None if inherited is None else inherited.fileno(),
            endpoints=crew.overlay.to_plain(),
        )

    async def _end(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        self._gone()

    def _gone(self) -> None:
        """Nobody is in this place: what ran or waited there does so no more; what ended did."""
        self._crew.gateway.tally.change_gauges(self._gauges, _NONE)
        self.pid, self.is_ready, self.lanes = None, False, []
        self._gauges, self._report = _NONE, None
        if self._link is not None:
            self._link.close()
            self._link = None
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_result(None)

    # What it says.

    def _ask(self, number: int, question: object) -> asyncio.Future[Any]:
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: self._answers.pop(number, None))
        self.say(question)
        return answer

    def _heard(self, message: FromWorker) -> None:
        begun = self._begun
        match message:
            case Ready():
                if begun is not None and not begun.done():
                    begun.set_result(None)
            case Failed(why=why):
                if begun is not None and not begun.done():
                    begun.set_exception(LLMUnavailableError(f"a worker cannot begin: {why}"))
            case Stands(number=number):
                self._answer(number, message)
            case Report(number=number):
                self._count(message)
                if number is not None:
                    self._answer(number, message)

    def _answer(self, number: int, message: object) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _count(self, report: Report) -> None:
        gateway = self._crew.gateway
        add_calls(gateway.tally, report.calls)
        add_history(gateway.history, report.history)
        gauges = (report.waiting, report.running, report.running_at)
        gateway.tally.change_gauges(self._gauges, gauges)
        self._gauges, self._report = gauges, report
        placed = {each.backend.name: each for each in gateway.standing.placed}
        for part in report.endpoints:
            if part.name in placed:  # else it was removed, and nobody asks any more
                add_endpoint(placed[part.name].lane, part)
        self.lanes = [
            LaneSnapshot(
                name=lane.name,
                running=lane.running,
                places=lane.places,
                waiting=lane.waiting,
                max_waiting=lane.max_waiting,
                circuit=lane.circuit,
            )
            for lane in report.lanes
        ]

    def _link_lost(self, lost: asyncio.Event, error: Exception | None) -> None:
        lost.set()
        if lost is not self._lost:
            return  # the process before, whose place is taken
        self._link = None
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(LLMUnavailableError("a worker ended before it had begun"))
        if error is not None and self._process is not None and self._process.returncode is None:
            log.error("worker %s does not say what we understand: %s", self.pid, error)
            self._process.kill()


def _model(route: Route | None) -> Model | None:
    if route is None:
        return None
    return Model(name=route.model, patterns=route.patterns, created=route.created)


async def _all(works: Iterator[Coroutine[Any, Any, None]]) -> None:
    """All of ``works`` side by side; the first failure ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
